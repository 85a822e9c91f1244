/** A session from its opening to its end: what it stands on, and that losing it cuts at once, durably and for a stated reason. */
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { CATALOGUE } from '#policy'
import type { EndedGrant, Grant, OpenedSession, Problem, Session } from '#api'
import {
  grantFor,
  soon,
  startNode,
  until,
  type DeviceIdentity,
  type LoggedEvent,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { setBefore, setForward } from '../../support/clock.ts'
import { answer, oblige } from '../../support/policy.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  PLC,
  refusalOf,
  seen,
  serve,
  type FakeAgent,
  type Line,
} from '../../support/tunnels.ts'

/** A second build that may be approved beside the first. */
const NEWER = '/usr/bin/plc-runtime-2'

let node: TestNode
let vendor: Person
let other: Person
let operator: Person
let identity: DeviceIdentity
let agent: FakeAgent

beforeAll(async () => {
  node = await startNode()
  identity = await node.device('press-07', { plc: expecting(), hmi: expecting() })
  await node.device('press-08', { plc: expecting() })
  ;[vendor, other, operator, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'other' }),
    node.person('oda', { party: 'staff', roles: ['operator'] }),
    attach(node, identity, {
      listeners: { plc: seen(PLC, 'listener'), hmi: seen(PLC, 'listener') },
    }),
  ])
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(async () => {
  agent.target = echo
  agent.answer = undefined
  agent.observed = seen(PLC)
  if (listens !== PLC) await tell(PLC)
  for (const who of [vendor, other])
    for (const { id, ended } of (await who.ask<{ items: Grant[] }>('GET', '/grants')).items)
      // One whose time is over may end by itself meanwhile.
      if (ended === null) await who.call('POST', `/grants/${id}/done`)
  await until('the session before is over', async () => (await node.health()).sessions === 0)
})

/** What the gateway was told last of what listens. */
let listens = PLC
async function tell(exe: string): Promise<void> {
  agent.report({ type: 'targets', targets: targets(exe) })
  await until('the report counts', async () => {
    const { text } = await node.admin.call('GET', '/devices/press-07')
    return text.includes('/tmp/evil') === (exe === '/tmp/evil')
  })
  listens = exe
}

function targets(exe: string): readonly unknown[] {
  return ['plc', 'hmi'].map((process) => ({
    process,
    kind: 'tcp',
    listener: seen(exe, 'listener'),
  }))
}

interface Carried {
  readonly grant: Grant
  readonly session: OpenedSession
  readonly client: Client
  readonly line: Line
  /** Index of the next event when bytes had passed. */
  readonly from: number
}

/** A grant, a session under it, and a connection that has carried something. */
async function carried(): Promise<Carried> {
  const grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
  const session = await vendor.ask<OpenedSession>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
    grant: grant.id,
  })
  const client = await Client.dial(node)
  onTestFinished(async () => {
    await client[Symbol.asyncDispose]()
    await vendor.call('POST', `/grants/${grant.id}/done`)
  })
  const line = await client.line(session)
  line.write('ping')
  await line.until('it is carried', ({ text }) => text === 'ping')
  return { grant, session, client, line, from: node.size() }
}

function endsSince(from: number): LoggedEvent[] {
  return node.events(from).filter(({ code }) => code === 'session.end')
}

/** Both sides are closed, the end is durable and says why, and nothing is left to connect to. */
async function isCut(
  { session, client, line, from }: Carried,
  code: string | RegExp,
  reason: string,
): Promise<Session> {
  const closed = await line.gone()
  expect(closed.code).toMatch(code)
  expect(line.signals.at(-1)).toMatchObject({ t: 'ending', code: closed.code })
  await until('the device’s side is closed', () => agent.open() === 0)
  const [end, ...more] = await until('the end is in the log', () => {
    const ends = endsSince(from)
    return ends.length > 0 ? ends : undefined
  })
  expect(more).toEqual([])
  expect(end?.text).toContain(`"reason":"${reason}"`)
  expect(end?.text).toContain(session.id)
  const record = await until('the list follows', async () => {
    const now = await node.admin.ask<Session>('GET', `/sessions/${session.id}`)
    return now.state === 'ended' ? now : undefined
  })
  expect(record).toMatchObject({ reason, bytes_in: 4, bytes_out: 4, connections: 1 })
  const before = agent.opened.length
  expect((await refusalOf(client.stream(session))).code).toBe('session.proof')
  expect([agent.opened.length, (await node.health()).sessions]).toEqual([before, 0])
  return record
}

describe('opening', () => {
  /** Nothing is open, and the log has the refusal. */
  async function refusedWith(
    status: number,
    code: string,
    body: Readonly<Record<string, unknown>>,
    who = vendor,
  ): Promise<Problem> {
    const from = node.size()
    const rows = node.rows('SELECT count(*) AS n FROM session')
    const reply = await who.call('POST', '/sessions', body)
    expect([reply.status, reply.body.code]).toEqual([status, code])
    expect(reply.headers.get('content-type')).toMatch(/^application\/problem\+json/)
    const events = node.acts(from)
    expect(events.map((event) => event.code)).toEqual(['session.deny'])
    expect(events[0]?.text).toContain(`"${code}"`)
    expect(node.rows('SELECT count(*) AS n FROM session')).toEqual(rows)
    expect((await node.health()).sessions).toBe(0)
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
    for (const body of bodies) told.push(await refusedWith(403, 'grant.none', body, other))
    const plain = told.map(({ request_id: _r, decision_id: _d, ...rest }) => JSON.stringify(rest))
    expect(new Set(plain).size).toBe(1)
    expect(told[0]?.next_step).toBeDefined()
  })

  test('in a way in which the process is not used: told what it is, nothing decided and nothing opened', async () => {
    const ask = (who: Person, uses: string[]) =>
      who.call<Problem>('POST', '/sessions', { device: 'press-07', process: 'plc', uses })
    expect((await ask(vendor, ['spawn'])).body.code).toBe('grant.none')
    await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
    const from = node.size()
    for (const uses of [['spawn'], ['udp'], ['app', 'spawn']])
      expect(await ask(vendor, uses)).toMatchObject({
        status: 409,
        body: { code: 'process.kind', detail: expect.stringContaining('is reached by tcp') },
      })
    expect(node.acts(from)).toEqual([])
    expect((await ask(vendor, ['udp', 'tcp'])).status).toBe(201)
  })

  test('staff are told what is not there', async () => {
    await refusedWith(404, 'target.unknown', { device: 'nowhere', process: 'plc' }, operator)
  })

  test('a device without a tunnel', async () => {
    const grant = await grantFor(vendor, operator, { device: 'press-08', process: 'plc' })
    await refusedWith(503, 'device.offline', { device: 'press-08', process: 'plc' })
    await vendor.ask('POST', `/grants/${grant.id}/done`)
  })

  test('a grant of somebody else', async () => {
    const grant = await grantFor(other, operator, { device: 'press-07', process: 'plc' })
    await refusedWith(403, 'grant.none', { device: 'press-07', process: 'plc', grant: grant.id })
    await other.ask('POST', `/grants/${grant.id}/done`)
  })

  test('a grant for another process', async () => {
    const grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
    await refusedWith(403, 'grant.none', { device: 'press-07', process: 'hmi' })
    await refusedWith(403, 'grant.none', { device: 'press-07', process: 'hmi', grant: grant.id })
    await vendor.ask('POST', `/grants/${grant.id}/done`)
  })

  test('a grant that waits for approval', async () => {
    const asked = await vendor.ask<Grant>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 60,
      reason: 'x',
    })
    await refusedWith(403, 'grant.pending', { device: 'press-07', process: 'plc', grant: asked.id })
    await vendor.ask('POST', `/grants/${asked.id}/done`)
    await refusedWith(403, 'grant.expired', { device: 'press-07', process: 'plc', grant: asked.id })
  })

  test('another executable listens', async () => {
    const grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
    await tell('/tmp/evil')
    await refusedWith(403, 'process.mismatch', { device: 'press-07', process: 'plc' })
    await vendor.ask('POST', `/grants/${grant.id}/done`)
  })

  test.for([
    ['ot_each', true],
    ['ot_windows', [[{ unit: 1, from: 0, to: 9 }]]],
    ['ot_level', 2],
  ] as const)('policy asks for %s, which cannot be held', async ([key, value]) => {
    const grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
    oblige({ [key]: value })
    await refusedWith(403, 'obligation.unsupported', { device: 'press-07', process: 'plc' })
    await vendor.ask('POST', `/grants/${grant.id}/done`)
  })
})

describe('a connection', () => {
  test('to another executable than the approved one is refused, and named; others go on', async () => {
    const { session, client, line, from } = await carried()
    let at = 0
    agent.observed = () => (at++ === 0 ? seen('/tmp/evil') : seen(PLC))
    const { code, told } = await refusalOf(client.stream(session))
    expect([code, told?.code]).toEqual(['process.mismatch', 'process.mismatch'])
    expect(told?.decision_id).toMatch(/^d_/)
    const events = node.acts(from)
    expect(events.map((event) => event.code).toSorted()).toEqual([
      'finding.process_mismatch',
      'session.deny',
    ])
    for (const event of events) expect(event.text).toContain('/tmp/evil')
    await until('its stream is gone', () => agent.open() === 1)
    line.write('more')
    await line.until('the first goes on', ({ text }) => text === 'pingmore')
    const third = await client.line(session)
    third.write('x')
    await third.until('and another works', ({ text }) => text === 'x')
  })

  test('whose socket a second program shares', async () => {
    const { session, client } = await carried()
    agent.observed = { ...seen(PLC), others: [seen('/tmp/evil')] }
    expect((await refusalOf(client.stream(session))).code).toBe('process.mismatch')
  })

  test('for which the agent only looked at the listener', async () => {
    const { session, client } = await carried()
    agent.observed = seen(PLC, 'listener')
    expect((await refusalOf(client.stream(session))).code).toBe('process.unobserved')
  })
})

describe('what ends a session', () => {
  test('its grant is revoked', async () => {
    const one = await carried()
    const ended = await node.admin.ask<EndedGrant>('POST', `/grants/${one.grant.id}/revoke`, {
      reason: 'enough',
    })
    expect(ended.grant.state).toBe('revoked')
    expect(ended.cut.sessions.map(({ id }) => id)).toEqual([one.session.id])
    expect(ended.cut.slowest_ms).toBeGreaterThan(0)
    // When the answer is there, everything it says is durable and nothing passes any more.
    expect(endsSince(one.from)).toHaveLength(1)
    const record = await isCut(one, /^grant\.revoked$/, 'policy_recheck')
    // Who is cut is told what to do, and what to ask about, as who is refused is.
    const { next_step, decision_id } = one.line.signals.at(-1) as Record<string, string>
    expect(next_step).toBe(CATALOGUE['grant.revoked'].next)
    expect((await vendor.call('GET', `/decisions/${decision_id}`)).body).toMatchObject({
      point: 'session.reevaluate',
      why: [{ code: 'grant.revoked' }],
    })
    expect(record.time_to_cut_ms).toBe(ended.cut.sessions[0]?.time_to_cut_ms)
    const again = await vendor.call('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
      grant: one.grant.id,
    })
    expect([again.status, again.body.code]).toEqual([403, 'grant.revoked'])
  })

  test('its holder gives the grant back', async () => {
    const one = await carried()
    await vendor.ask('POST', `/grants/${one.grant.id}/done`)
    await isCut(one, /^grant\.expired$/, 'grant_burned')
  })

  test('its holder ends it', async () => {
    const one = await carried()
    await vendor.ask('POST', `/sessions/${one.session.id}/end`)
    const record = await isCut(one, /^client\.done$/, 'client_done')
    expect(record.time_to_cut_ms).toBeNull()
  })

  test('an operator cuts it', async () => {
    const one = await carried()
    const cut = await operator.ask<{ slowest_ms: number }>(
      'POST',
      `/sessions/${one.session.id}/cut`,
      { reason: 'odd' },
    )
    expect(cut.slowest_ms).toBeGreaterThan(0)
    await isCut(one, /^session\.killed$/, 'killed')
    expect(node.events(one.from).map(({ code }) => code)).toContain('session.kill')
  })

  test('its device is quarantined', async () => {
    const one = await carried()
    await operator.ask('POST', '/devices/press-07/quarantine', { reason: 'odd' })
    await isCut(one, /^device\.quarantined$/, 'policy_recheck')
    await node.admin.ask('POST', '/devices/press-07/resume', { reason: 'fine' })
  })

  test('its process must now be another executable', async () => {
    const one = await carried()
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting('/usr/bin/newer'))
    await isCut(one, /^process\.mismatch$/, 'process_mismatch')
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
  })

  test('one of two connections stands on an executable that is no longer approved', async () => {
    const both = { ...expecting(), expect: { sha256: [seen(PLC).sha256, seen(NEWER).sha256] } }
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', both)
    const one = await carried()
    agent.observed = seen(NEWER)
    const second = await one.client.line(one.session)
    second.write('pong')
    await second.until('it is carried too', ({ text }) => text === 'pong')
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting(NEWER))
    expect((await one.line.gone()).code).toBe('process.mismatch')
    expect((await second.gone()).code).toBe('process.mismatch')
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
  })

  test('its process becomes another kind, which would be held to other rules', async () => {
    const one = await carried()
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting(PLC, 'modbus'))
    await isCut(one, 'process.kind', 'policy_recheck')
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
  })

  test('the device sees another owner of its socket', async () => {
    const one = await carried()
    agent.report({ type: 'owner_changed', session: one.session.id, observed: seen('/tmp/evil') })
    await isCut(one, /^process\.mismatch$/, 'process_mismatch')
  })

  test('the device does not see the owner of its socket any more', async () => {
    const one = await carried()
    agent.report({ type: 'owner_changed', session: one.session.id, observed: null })
    await isCut(one, /^process\./, 'policy_recheck')
  })

  test('the device says nonsense about the owner of its socket', async () => {
    const one = await carried()
    agent.report({ type: 'owner_changed', session: one.session.id, observed: { exe: 7 } })
    await isCut(one, /^process\./, 'policy_recheck')
  })

  test('the time of its grant is over', async () => {
    const one = await carried()
    setBefore(one.session.expires_at, 1000)
    await isCut(one, /^window\.end$/, 'window_end')
    expect(Date.now()).toBeGreaterThanOrEqual(one.session.expires_at * 1000)
  })

  test('the time of its grant is over, though the clock of the machine was set back by a day', async () => {
    const one = await carried()
    setBefore(one.session.expires_at, 1000)
    // The node has seen how late it is before the clock is put back.
    await node.health()
    const real = Date.now
    const set = vi.spyOn(Date, 'now').mockImplementation(() => real() - 86_400_000)
    await one.line.gone().finally(() => set.mockRestore())
    await isCut(one, /^window\.end$/, 'window_end')
  })

  test('nobody uses it', async () => {
    oblige({ idle_timeout_s: 300 })
    const one = await carried()
    setForward(300_000)
    await isCut(one, /^session\.idle$/, 'idle')
  })

  test('use keeps it from being idle', async () => {
    oblige({ idle_timeout_s: 100 })
    const one = await carried()
    for (let at = 1; at <= 4; at++) {
      setForward(60_000)
      one.line.write('x')
      await one.line.until('it is carried', ({ total }) => total === 4 + at)
    }
    expect((await node.health()).sessions).toBe(1)
    await vendor.ask('POST', `/sessions/${one.session.id}/end`)
  })

  test('the rule is asked again when its time has come, and says no', async () => {
    let no = false
    answer((decision, point) => {
      if (point !== 'session.reevaluate' && point !== 'session.open') return decision
      const obligations = { ...decision.obligations, reeval_after_s: 1 }
      if (!no || point === 'session.open') return { ...decision, obligations }
      const denials = [{ code: 'window.closed', msg: 'the window of the zone is closed' }]
      return { ...decision, effect: 'deny', allow: false, reasons: [], denials, obligations }
    })
    const one = await carried()
    no = true
    await isCut(one, /^window\.closed$/, 'policy_recheck')
  })

  test('deciding fails: that is a no', async () => {
    let broken = false
    answer((decision, point) => {
      if (broken && point === 'session.reevaluate') throw new Error('broken')
      return decision
    })
    const one = await carried()
    broken = true
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())
    await isCut(one, /^policy\.error$/, 'policy_recheck')
  })

  test('half of it is closed already', async () => {
    const one = await carried()
    agent.target = (stream) => {
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.onEnd = () => {}
      stream.end()
    }
    const half = await one.client.line(one.session)
    await half.until('the end of one way', ({ ended }) => ended)
    await node.admin.ask('POST', `/grants/${one.grant.id}/revoke`, { reason: 'enough' })
    expect((await half.gone()).code).toBe('grant.revoked')
    await until('the device’s side is closed', () => agent.open() === 0)
  })

  test('while a connection is being opened: it never gets a byte', async () => {
    const one = await carried()
    const { promise: asked, resolve } = Promise.withResolvers<() => void>()
    agent.answer = (offer, metadata) => resolve(() => serve(agent, offer, metadata))
    const attempt = refusalOf(one.client.stream(one.session))
    const go = await soon('the device is asked', asked)
    const proceeded = agent.proceeded
    await node.admin.ask('POST', `/grants/${one.grant.id}/revoke`, { reason: 'enough' })
    go()
    expect((await attempt).code).toMatch(/^(session\.ended|grant\.revoked)$/)
    expect(agent.proceeded).toBe(proceeded)
    await until('no stream is left', () => agent.open() === 0)
  })

  test('a reader who does not read cannot keep it', async () => {
    const one = await carried()
    agent.target = (stream) => {
      const pour = () => {
        while (stream.write(new Uint8Array(65_536))) continue
      }
      stream.onDrain = pour
      pour()
    }
    const stalled = await one.client.line(one.session, { reading: false, keep: false })
    await until('something came', () => stalled.total > 0)
    const ended = await node.admin.ask<EndedGrant>('POST', `/grants/${one.grant.id}/revoke`, {
      reason: 'enough',
    })
    expect(ended.cut.sessions).toHaveLength(1)
    expect((await stalled.gone()).code).toBe('grant.revoked')
    await until('no stream is left', () => agent.open() === 0)
  })
})

test('a ninth session under one grant', async () => {
  const grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
  const body = { device: 'press-07', process: 'plc', grant: grant.id }
  for (let at = 0; at < 8; at++) await vendor.ask('POST', '/sessions', body)
  const ninth = await vendor.call('POST', '/sessions', body)
  expect([ninth.status, ninth.body.code]).toEqual([429, 'session.limit'])
  await vendor.ask('POST', `/grants/${grant.id}/done`)
  await until('all eight have ended', async () => (await node.health()).sessions === 0)
})

test('revoked while it is being opened, in fifty interleavings: never half a session', async () => {
  const from = node.size()
  for (let round = 0; round < 50; round++) {
    const grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
    const opening = vendor.call<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
      grant: grant.id,
    })
    // The further on, the later the revocation comes.
    for (let turns = 0; turns < round; turns++)
      await new Promise((resolve) => setImmediate(resolve))
    const revoking = operator.ask('POST', `/grants/${grant.id}/revoke`, { reason: 'race' })
    const [opened] = await Promise.all([opening, revoking])
    expect([201, 403, 409]).toContain(opened.status)
  }
  expect((await node.health()).sessions).toBe(0)
  expect(node.rows('SELECT id FROM session WHERE ended_at IS NULL')).toEqual([])
  const sessionOf = ({ text }: LoggedEvent) => /"s_[0-9a-z]{26}"/.exec(text)?.[0] ?? ''
  const events = node.events(from)
  const starts = events.filter(({ code }) => code === 'session.start').map(sessionOf)
  const ends = events.filter(({ code }) => code === 'session.end').map(sessionOf)
  expect(ends).toHaveLength(starts.length)
  expect(new Set(ends)).toEqual(new Set(starts))
})

test('the device is quarantined while a session is being opened, in fifteen interleavings', async () => {
  const from = node.size()
  await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
  for (let round = 0; round < 15; round++) {
    const opening = vendor.call<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    for (let turns = 0; turns < round; turns++)
      await new Promise((resolve) => setImmediate(resolve))
    const moving = operator.ask('POST', '/devices/press-07/quarantine', { reason: 'race' })
    await Promise.all([opening, moving])
    expect((await node.health()).sessions).toBe(0)
    await node.admin.ask('POST', '/devices/press-07/resume', { reason: 'race' })
  }
  expect(node.rows('SELECT id FROM session WHERE ended_at IS NULL')).toEqual([])
  const codes = node.events(from).map(({ code }) => code)
  const count = (code: string) => codes.filter((one) => one === code).length
  expect(count('session.end')).toBe(count('session.start'))
})
