/** A session as it is opened, and its connections: what it stands on, and what happens to that meanwhile. */
import { describe, expect, test } from 'vitest'
import type { Grant, OpenedSession, Problem } from '#api'
import { usesOf } from '../../../gateway/devices/device.ts'
import { grantFor, until, type LoggedEvent, type Person } from '../../support/node.ts'
import { oblige } from '../../support/policy.ts'
import { PLC, refusalOf, seen } from '../../support/tunnels.ts'
import { carried, here, tell, twoDevices } from './carried.ts'

twoDevices()

describe('opening', () => {
  /** Nothing is open, and the log has the refusal. */
  async function refusedWith(
    status: number,
    code: string,
    body: Readonly<Record<string, unknown>>,
    who = here.vendor,
  ): Promise<Problem> {
    const from = here.node.size()
    const rows = here.node.rows('SELECT count(*) AS n FROM session')
    const reply = await who.call('POST', '/sessions', body)
    expect([reply.status, reply.body.code]).toEqual([status, code])
    expect(reply.headers.get('content-type')).toMatch(/^application\/problem\+json/)
    const events = here.node.acts(from)
    expect(events.map((event) => event.code)).toEqual(['session.deny'])
    expect(events[0]?.text).toContain(`"${code}"`)
    expect(here.node.rows('SELECT count(*) AS n FROM session')).toEqual(rows)
    expect((await here.node.health()).sessions).toBe(0)
    return reply.body
  }

  test('without a grant: what exists and what does not are told alike', async () => {
    const bodies = [
      { device: 'press-07', process: 'plc' },
      { device: 'press-08', process: 'plc' },
      { device: 'press-07', process: 'nothing' },
      { device: 'nowhere', process: 'plc' },
    ]
    const told: Problem[] = []
    for (const body of bodies) told.push(await refusedWith(403, 'grant.none', body, here.other))
    const plain = told.map(({ request_id: _r, decision_id: _d, ...rest }) => JSON.stringify(rest))
    expect(new Set(plain).size).toBe(1)
    expect(told[0]?.next_step).toBeDefined()
  })

  test('in a way in which the process is not used: told what it is, nothing decided and nothing opened', async () => {
    const ask = (who: Person, uses: string[]) =>
      who.call<Problem>('POST', '/sessions', { device: 'press-07', process: 'plc', uses })
    expect((await ask(here.vendor, ['spawn'])).body.code).toBe('grant.none')
    await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
    const from = here.node.size()
    for (const uses of [['spawn'], ['udp'], ['app', 'spawn']])
      expect(await ask(here.vendor, uses)).toMatchObject({
        status: 409,
        body: { code: 'process.kind', detail: expect.stringContaining('is reached by tcp') },
      })
    expect(here.node.acts(from)).toEqual([])
    expect((await ask(here.vendor, ['udp', 'tcp'])).status).toBe(201)
  })

  test('ssh is for what speaks it, or may: nothing else is opened for it', () => {
    const kinds = ['ssh', 'tcp', 'modbus', 'http', 'udp', 'spawn']
    expect(kinds.filter((kind) => usesOf(kind).includes('ssh'))).toEqual(['ssh', 'tcp'])
  })

  test('staff are told what is not there', async () => {
    await refusedWith(404, 'target.unknown', { device: 'nowhere', process: 'plc' }, here.operator)
  })

  test('a device without a tunnel', async () => {
    const grant = await grantFor(here.vendor, here.operator, { device: 'press-08', process: 'plc' })
    await refusedWith(503, 'device.offline', { device: 'press-08', process: 'plc' })
    await here.vendor.ask('POST', `/grants/${grant.id}/done`)
  })

  test('a grant of somebody else', async () => {
    const grant = await grantFor(here.other, here.operator, { device: 'press-07', process: 'plc' })
    await refusedWith(403, 'grant.none', { device: 'press-07', process: 'plc', grant: grant.id })
    await here.other.ask('POST', `/grants/${grant.id}/done`)
  })

  test('a grant for another process', async () => {
    const grant = await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
    await refusedWith(403, 'grant.none', { device: 'press-07', process: 'hmi' })
    await refusedWith(403, 'grant.none', { device: 'press-07', process: 'hmi', grant: grant.id })
    await here.vendor.ask('POST', `/grants/${grant.id}/done`)
  })

  test('a grant that waits for approval', async () => {
    const asked = await here.vendor.ask<Grant>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 60,
      reason: 'x',
    })
    await refusedWith(403, 'grant.pending', { device: 'press-07', process: 'plc', grant: asked.id })
    await here.vendor.ask('POST', `/grants/${asked.id}/done`)
    await refusedWith(403, 'grant.expired', { device: 'press-07', process: 'plc', grant: asked.id })
  })

  test('another executable listens', async () => {
    const grant = await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
    await tell('/tmp/evil')
    await refusedWith(403, 'process.mismatch', { device: 'press-07', process: 'plc' })
    await here.vendor.ask('POST', `/grants/${grant.id}/done`)
  })

  test.for([
    ['ot_each', true],
    ['ot_windows', [[{ unit: 1, from: 0, to: 9 }]]],
    ['ot_level', 2],
  ] as const)('policy asks for %s, which cannot be held', async ([key, value]) => {
    const grant = await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
    oblige({ [key]: value })
    await refusedWith(403, 'obligation.unsupported', { device: 'press-07', process: 'plc' })
    await here.vendor.ask('POST', `/grants/${grant.id}/done`)
  })
})

describe('a connection', () => {
  test('to another executable than the approved one is refused, and named; others go on', async () => {
    const { session, client, line, from } = await carried()
    let at = 0
    here.agent.observed = () => (at++ === 0 ? seen('/tmp/evil') : seen(PLC))
    const { code, told } = await refusalOf(client.stream(session))
    expect([code, told?.code]).toEqual(['process.mismatch', 'process.mismatch'])
    expect(told?.decision_id).toMatch(/^d_/)
    const events = here.node.acts(from)
    expect(events.map((event) => event.code).toSorted()).toEqual([
      'finding.process_mismatch',
      'session.deny',
    ])
    for (const event of events) expect(event.text).toContain('/tmp/evil')
    await until('its stream is gone', () => here.agent.open() === 1)
    line.write('more')
    await line.until('the first goes on', ({ text }) => text === 'pingmore')
    const third = await client.line(session)
    third.write('x')
    await third.until('and another works', ({ text }) => text === 'x')
  })

  test('whose socket a second program shares', async () => {
    const { session, client } = await carried()
    here.agent.observed = { ...seen(PLC), others: [seen('/tmp/evil')] }
    expect((await refusalOf(client.stream(session))).code).toBe('process.mismatch')
  })

  test('for which the agent only looked at the listener', async () => {
    const { session, client } = await carried()
    here.agent.observed = seen(PLC, 'listener')
    expect((await refusalOf(client.stream(session))).code).toBe('process.unobserved')
  })
})

test('a ninth session under one grant', async () => {
  const grant = await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
  const body = { device: 'press-07', process: 'plc', grant: grant.id }
  for (let at = 0; at < 8; at++) await here.vendor.ask('POST', '/sessions', body)
  const ninth = await here.vendor.call('POST', '/sessions', body)
  expect([ninth.status, ninth.body.code]).toEqual([429, 'session.limit'])
  await here.vendor.ask('POST', `/grants/${grant.id}/done`)
  await until('all eight have ended', async () => (await here.node.health()).sessions === 0)
})

test('revoked while it is being opened, in fifty interleavings: never half a session', async () => {
  const from = here.node.size()
  for (let round = 0; round < 50; round++) {
    const grant = await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
    const opening = here.vendor.call<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
      grant: grant.id,
    })
    // The further on, the later the revocation comes.
    for (let turns = 0; turns < round; turns++)
      await new Promise((resolve) => setImmediate(resolve))
    const revoking = here.operator.ask('POST', `/grants/${grant.id}/revoke`, { reason: 'race' })
    const [opened] = await Promise.all([opening, revoking])
    expect([201, 403, 409]).toContain(opened.status)
  }
  expect((await here.node.health()).sessions).toBe(0)
  expect(here.node.rows('SELECT id FROM session WHERE ended_at IS NULL')).toEqual([])
  const sessionOf = ({ text }: LoggedEvent) => /"s_[0-9a-z]{26}"/.exec(text)?.[0] ?? ''
  const events = here.node.events(from)
  const starts = events.filter(({ code }) => code === 'session.start').map(sessionOf)
  const ends = events.filter(({ code }) => code === 'session.end').map(sessionOf)
  expect(ends).toHaveLength(starts.length)
  expect(new Set(ends)).toEqual(new Set(starts))
})

test('the device is quarantined while a session is being opened, in fifteen interleavings', async () => {
  const from = here.node.size()
  await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
  for (let round = 0; round < 15; round++) {
    const opening = here.vendor.call<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    for (let turns = 0; turns < round; turns++)
      await new Promise((resolve) => setImmediate(resolve))
    const moving = here.operator.ask('POST', '/devices/press-07/quarantine', { reason: 'race' })
    await Promise.all([opening, moving])
    expect((await here.node.health()).sessions).toBe(0)
    await here.node.admin.ask('POST', '/devices/press-07/resume', { reason: 'race' })
  }
  expect(here.node.rows('SELECT id FROM session WHERE ended_at IS NULL')).toEqual([])
  const codes = here.node.events(from).map(({ code }) => code)
  const count = (code: string) => codes.filter((one) => one === code).length
  expect(count('session.end')).toBe(count('session.start'))
})
