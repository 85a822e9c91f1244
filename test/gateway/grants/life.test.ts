/** A grant that is extended, or superseded, while somebody works under it: who is asked, who is told, what is recorded. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { EndedGrant, Grant, OpenedSession, Problem, Session } from '#api'
import { canonical, hashOf, type Statement } from '#approval'
import {
  openSession,
  startNode,
  until,
  type Answer,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  PLC,
  seen,
  type FakeAgent,
} from '../../support/tunnels.ts'

let node: TestNode
let vendor: Person
let other: Person
let agent: FakeAgent
/** What the device was told of its leases. */
let leases: { readonly t: string; readonly remaining_ms: number }[] = []

beforeAll(async () => {
  node = await startNode()
  const identity = await node.device('press-07', { plc: expecting(), hmi: expecting() })
  const listener = seen(PLC, 'listener')
  ;[vendor, other, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'other' }),
    attach(node, identity, { listeners: { plc: listener, hmi: listener } }),
  ])
  agent.target = (stream) => {
    echo(stream)
    stream.onSignal = (payload) =>
      void leases.push(JSON.parse(new TextDecoder().decode(payload)) as (typeof leases)[number])
  }
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(async () => {
  leases = []
  for (const { id, ended } of (await vendor.ask<{ items: Grant[] }>('GET', '/grants')).items)
    if (ended === null) await vendor.call('POST', `/grants/${id}/done`)
})

const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 600, reason: 'service' }
const approve = async ({ id, hash }: Grant): Promise<Grant> =>
  await node.admin.ask<Grant>('POST', `/grants/${id}/approve`, { hash })
const ask = async (more: object = {}): Promise<Grant> =>
  await vendor.ask<Grant>('POST', '/grants', { ...WANTED, ...more })
const read = async ({ id }: Grant): Promise<Grant> => await vendor.ask('GET', `/grants/${id}`)
const more = async ({ id }: Grant, longer_s = 1800, who = vendor) =>
  await who.call<Grant & Problem>('POST', `/grants/${id}/extension`, { longer_s, reason: 'stuck' })
const told = ({ status, body }: Answer<Problem>) => [status, body.code]
const sessionOf = async ({ id }: OpenedSession) =>
  await vendor.ask<Session>('GET', `/sessions/${id}`)

describe('extended', () => {
  test('while a connection is open: asked, approved, told to device and client, and it goes on', async () => {
    const from = node.size()
    const grant = await approve(await ask())
    const opened = await openSession(vendor, 'press-07', 'plc')
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    const before = await read(grant)
    const asked = (await more(grant)).body
    expect(asked).toMatchObject({
      state: 'requested',
      extends: grant.id,
      duration_s: 2400,
      approvals_needed: 1,
    })
    // Until somebody has approved it, nothing is longer.
    expect(await read(grant)).toEqual(before)
    expect((await sessionOf(opened)).expires_at).toBe(opened.expires_at)
    expect((await approve(asked)).state).toBe('approved')
    const after = await read(grant)
    expect([after.hash, after.expires_at]).toEqual([grant.hash, before.expires_at + 1800])
    expect(after.extension?.grant).toBe(asked.id)
    expect((await sessionOf(opened)).expires_at).toBe(opened.expires_at + 1800)
    await line.until('the news', ({ signals }) => signals.length > 0)
    expect(line.signals).toMatchObject([{ t: 'extended' }])
    await until('the device knows', () => leases.length === 1)
    expect(leases[0]?.t).toBe('lease')
    expect(leases[0]?.remaining_ms).toBeGreaterThan(opened.remaining_ms)
    line.write(Buffer.from('still here'))
    await line.until('the echo', ({ total }) => total === 10)
    const events = node.events(from).filter(({ code }) => /^grant\.(?:act|ext)/.test(code))
    expect(events.map(({ code }) => code)).toEqual([
      'grant.activate',
      'grant.activate',
      'grant.extend',
    ])
    expect(events[2]?.text).toContain(`"grant":"${grant.id}"`)
    expect(events[2]?.text).toContain(`"extension":"${asked.id}"`)

    // Taken back: it ends when it would have, and what is open until then stays.
    const ended = await node.admin.ask<EndedGrant>('POST', `/grants/${asked.id}/revoke`, {
      reason: 'the line starts at noon',
    })
    expect([ended.grant.state, ended.cut.sessions]).toEqual(['revoked', []])
    expect((await sessionOf(opened)).expires_at).toBe(opened.expires_at)
    expect(await read(grant)).toMatchObject({ extension: null, expires_at: before.expires_at })
    // The whole of it ends with the grant.
    const again = (await more(grant, 60)).body
    const all = await node.admin.ask<EndedGrant>('POST', `/grants/${grant.id}/revoke`, {
      reason: 'enough',
    })
    expect(all.cut.sessions.map(({ id }) => id)).toEqual([opened.id])
    expect((await read(again)).state).toBe('revoked')
  })

  test('nobody opens a session by it, and nobody but its holder asks', async () => {
    const grant = await approve(await ask())
    const asked = await approve((await more(grant)).body)
    const reply = await vendor.call('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
      grant: asked.id,
    })
    expect(told(reply)).toEqual([403, 'grant.none'])
    expect(told(await more(grant, 60, other))).toEqual([404, 'grant.unknown'])
    expect(told(await more(grant, 60, node.admin))).toEqual([409, 'grant.state'])
    expect(told(await more(asked))).toEqual([409, 'grant.state'])
    expect(told(await more(await ask()))).toEqual([409, 'grant.state'])
  })

  test('for longer than the zone allows anybody: refused, and recorded', async () => {
    const grant = await approve(await ask())
    const from = node.size()
    expect(told(await more(grant, 604_800))).toEqual([403, 'request.duration'])
    expect(node.acts(from).map(({ code }) => code)).toEqual(['grant.request'])
  })

  test('approved when the grant is over: it extends nothing', async () => {
    const grant = await approve(await ask())
    const asked = (await more(grant)).body
    await vendor.ask('POST', `/grants/${grant.id}/done`)
    const reply = await node.admin.call('POST', `/grants/${asked.id}/approve`, { hash: asked.hash })
    expect(told(reply)).toEqual([409, 'grant.state'])
  })

  test('by less than it was extended by meanwhile: not approved, and nothing says that it was', async () => {
    const grant = await approve(await ask())
    const [short, long] = [(await more(grant, 60)).body, (await more(grant, 600)).body]
    await approve(long)
    const from = node.size()
    const reply = await node.admin.call('POST', `/grants/${short.id}/approve`, { hash: short.hash })
    expect(told(reply)).toEqual([409, 'grant.state'])
    expect(node.events(from).filter(({ code }) => code.startsWith('grant.'))).toEqual([])
    expect((await read(grant)).extension?.grant).toBe(long.id)
  })

  test('by one’s own approval: no', async () => {
    const grant = await approve(await ask())
    const asked = (await more(grant)).body
    const reply = await vendor.call('POST', `/grants/${asked.id}/approve`, { hash: asked.hash })
    expect(told(reply)).toEqual([403, 'host.approver_is_requester'])
  })
})

describe('superseded', () => {
  test('by an edited one: the old one holds until that is approved, and then its sessions end', async () => {
    const grant = await approve(await ask())
    const opened = await openSession(vendor, 'press-07', 'plc')
    const from = node.size()
    const edited = await ask({ processes: ['plc', 'hmi'], supersedes: grant.id })
    expect(edited.supersedes).toBe(grant.id)
    expect((await sessionOf(opened)).state).toBe('open')
    await approve(edited)
    expect(await read(grant)).toMatchObject({
      state: 'revoked',
      ended: { reason: `superseded by ${edited.id}` },
    })
    const ended = await until('the session has ended', async () => {
      const session = await sessionOf(opened)
      return session.state === 'ended' ? session : undefined
    })
    expect(ended.reason).toBe('policy_recheck')
    const codes = node.events(from).map(({ code }) => code)
    const at = (code: string) => codes.indexOf(code)
    expect(at('grant.activate')).toBeGreaterThan(-1)
    expect(at('grant.revoke')).toBeGreaterThan(at('grant.activate'))
    expect(at('session.end')).toBeGreaterThan(at('grant.revoke'))
    const next = await openSession(vendor, 'press-07', 'hmi')
    expect(next.grant).toBe(edited.id)
    await vendor.ask('POST', `/sessions/${next.id}/end`)
  })

  test('somebody else’s, one that is not there, one that has ended: no, and the first two alike', async () => {
    const mine = await approve(await ask())
    await vendor.ask('POST', `/grants/${mine.id}/done`)
    const theirs = await other.ask<Grant>('POST', '/grants', WANTED)
    const nowhere = `g_${'0'.repeat(26)}`
    const tried = async (supersedes: string) =>
      told(await vendor.call('POST', '/grants', { ...WANTED, supersedes }))
    expect(await tried(theirs.id)).toEqual([404, 'grant.unknown'])
    expect(await tried(nowhere)).toEqual([404, 'grant.unknown'])
    expect(await tried(mine.id)).toEqual([409, 'grant.state'])
  })
})

describe('one whose window comes back', () => {
  /** Each day, from so many minutes from now on, for so many. */
  const around = (from: number, minutes: number) => {
    const from_min = (Math.floor(Date.now() / 60_000) + from + 1440) % 1440
    return { tz: 'UTC', days: [0, 1, 2, 3, 4, 5, 6], from_min, to_min: from_min + minutes }
  }
  const month = () => ({ not_after: now() + 30 * 86_400, duration_s: 30 * 86_400 })
  const now = () => Math.floor(Date.now() / 1000)
  /** As if its windows had been these from the beginning, and approvers had signed that. */
  function turn({ id }: Grant, recurring: object): void {
    const [row] = node.rows('SELECT statement FROM access_grant WHERE id = ?', id)
    const statement = {
      ...(JSON.parse(String(row?.['statement'])) as Statement),
      recurring,
    } as Statement
    const hash = hashOf(statement)
    const text = canonical(statement)
    node.change('UPDATE access_grant SET statement = ?, hash = ? WHERE id = ?', text, hash, id)
    node.change('UPDATE grant_approval SET hash = ? WHERE grant_id = ?', hash, id)
  }

  test('between two: refused, and told when it opens; asked for as it stands in the log', async () => {
    const from = node.size()
    const recurring = around(120, 60)
    const grant = await approve(await ask({ ...month(), recurring }))
    expect(grant).toMatchObject({ recurring, state: 'approved' })
    const { from: opens = 0, until: closes = 0 } = grant.opens ?? {}
    expect([closes - opens, opens % 3600]).toEqual([3600, (recurring.from_min % 60) * 60])
    const body = { device: 'press-07', process: 'plc' }
    const reply = await vendor.call<Problem>('POST', '/sessions', body)
    expect(told(reply)).toEqual([403, 'grant.not_yet'])
    expect(reply.body.next_step).toContain(
      new Date(opens * 1000).toISOString().replace('.000Z', 'Z'),
    )
    const request = node.acts(from).find(({ code }) => code === 'grant.request')
    expect(request?.text).toContain('every day')
  })

  test('a session ends with the window, and is cut where that is over; its client is told of the next', async () => {
    const recurring = around(-10, 60)
    const grant = await approve(await ask({ ...month(), recurring }))
    const opened = await openSession(vendor, 'press-07', 'plc')
    expect(opened.expires_at).toBe(grant.opens?.until)
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    turn(grant, around(-30, 20))
    // Whatever has it decided again.
    const longer = (await more(grant, 86_400)).body
    await approve(longer)
    await line.gone()
    expect(line.signals).toContainEqual(
      expect.objectContaining({
        t: 'ending',
        next_step: expect.stringMatching(/^connect again then: it opens .* UTC/),
      }),
    )
    expect(await sessionOf(opened)).toMatchObject({ reason: 'window_end' })
    expect((await read(grant)).state).toBe('active')
  })
})
