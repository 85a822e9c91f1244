/** Sessions that have carried something, and what their end looks like from everywhere. */
import { afterAll, beforeAll, beforeEach, expect, onTestFinished } from 'vitest'
import type { Grant, OpenedSession, Session } from '#api'
import {
  grantFor,
  startNode,
  until,
  type LoggedEvent,
  type NodeOptions,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  PLC,
  refusalOf,
  seen,
  type FakeAgent,
  type Line,
} from '../../support/tunnels.ts'

/** A second build that may be approved beside the first. */
export const NEWER = '/usr/bin/plc-runtime-2'

interface Here {
  node: TestNode
  vendor: Person
  other: Person
  operator: Person
  agent: FakeAgent
}
/** Of the file that runs. */
export const here = {} as Here

/** A node, two devices, two vendors and an operator; each row begins with no session and no grant. */
export function twoDevices(options: () => NodeOptions | Promise<NodeOptions> = () => ({})): void {
  beforeAll(async () => {
    here.node = await startNode(await options())
    const identity = await here.node.device('press-07', { plc: expecting(), hmi: expecting() })
    await here.node.device('press-08', { plc: expecting() })
    ;[here.vendor, here.other, here.operator, here.agent] = await Promise.all([
      here.node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      here.node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'other' }),
      here.node.person('oda', { party: 'staff', roles: ['operator'] }),
      attach(here.node, identity, {
        listeners: { plc: seen(PLC, 'listener'), hmi: seen(PLC, 'listener') },
      }),
    ])
  })
  afterAll(async () => {
    await here.agent[Symbol.asyncDispose]()
    await here.node[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    here.agent.target = echo
    here.agent.answer = undefined
    here.agent.observed = seen(PLC)
    if (listens !== PLC) await tell(PLC)
    for (const who of [here.vendor, here.other])
      for (const { id, ended } of (await who.ask<{ items: Grant[] }>('GET', '/grants')).items)
        // One whose time is over may end by itself meanwhile.
        if (ended === null) await who.call('POST', `/grants/${id}/done`)
    await until('the session before is over', async () => (await here.node.health()).sessions === 0)
  })
}

/** What the gateway was told last of what listens. */
let listens = PLC
export async function tell(exe: string): Promise<void> {
  here.agent.report({ type: 'targets', targets: targets(exe) })
  await until('the report counts', async () => {
    const { text } = await here.node.admin.call('GET', '/devices/press-07')
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
export async function carried(): Promise<Carried> {
  const grant = await grantFor(here.vendor, here.operator, { device: 'press-07', process: 'plc' })
  const session = await here.vendor.ask<OpenedSession>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
    grant: grant.id,
  })
  const client = await Client.dial(here.node)
  onTestFinished(async () => {
    await client[Symbol.asyncDispose]()
    await here.vendor.call('POST', `/grants/${grant.id}/done`)
  })
  const line = await client.line(session)
  line.write('ping')
  await line.until('it is carried', ({ text }) => text === 'ping')
  return { grant, session, client, line, from: here.node.size() }
}

export function endsSince(from: number): LoggedEvent[] {
  return here.node.events(from).filter(({ code }) => code === 'session.end')
}

/** Both sides are closed, the end is durable and says why, and nothing is left to connect to. */
export async function isCut(
  { session, client, line, from }: Carried,
  code: string | RegExp,
  reason: string,
): Promise<Session> {
  const closed = await line.gone()
  expect(closed.code).toMatch(code)
  expect(line.signals.at(-1)).toMatchObject({ t: 'ending', code: closed.code })
  await until('the device’s side is closed', () => here.agent.open() === 0)
  const [end, ...more] = await until('the end is in the log', () => {
    const ends = endsSince(from)
    return ends.length > 0 ? ends : undefined
  })
  expect(more).toEqual([])
  expect(end?.text).toContain(`"reason":"${reason}"`)
  expect(end?.text).toContain(session.id)
  const record = await until('the list follows', async () => {
    const now = await here.node.admin.ask<Session>('GET', `/sessions/${session.id}`)
    return now.state === 'ended' ? now : undefined
  })
  expect(record).toMatchObject({ reason, bytes_in: 4, bytes_out: 4, connections: 1 })
  const before = here.agent.opened.length
  expect((await refusalOf(client.stream(session))).code).toBe('session.proof')
  expect([here.agent.opened.length, (await here.node.health()).sessions]).toEqual([before, 0])
  return record
}
