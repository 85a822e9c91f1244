/** A zone that wants the consent of the people at a device: who is asked, what each answer does, and what a yes is good for. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { OpenedSession, Problem } from '#api'
import { heard, Questions } from '../../../gateway/sessions/consent.ts'
import {
  grantFor,
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
  serve,
  type FakeAgent,
  type OpenMetadata,
} from '../../support/tunnels.ts'
import { siteOfOwn } from '../../support/zone.ts'

type Asking = OpenMetadata & { readonly protocol?: string; readonly who?: string }
type Said = 'yes' | 'nothing' | { readonly at: number } | { readonly code: string }

const ask = { device: 'press-07', process: 'plc' }
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
const nowS = () => Math.floor(Date.now() / 1000)
const site = siteOfOwn()
let node: TestNode
let vendor: Person
let second: Person
let agent: FakeAgent
/** What the people at the device say; 'nothing' is an agent that accepts and names nobody. */
let said: Said
let earlier: OpenedSession

beforeAll(async () => {
  node = await startNode({ config: site.config })
  const device = await node.device('press-07', { plc: expecting() })
  ;[vendor, second, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('second', { party: 'staff', roles: ['admin', 'engineer'] }),
    attach(node, device, { listeners: { plc: seen(PLC, 'listener') } }),
  ])
  agent.target = echo
  agent.answer = (offer, metadata) => {
    if ((metadata as Asking).protocol !== 'consent') return serve(agent, offer, metadata)
    if (typeof said === 'object' && 'code' in said) return offer.refuse(said.code, 'no')
    const at = typeof said === 'object' ? said.at : nowS()
    const consent = said === 'nothing' ? {} : { consent: { by: 'shift lead', at } }
    offer.accept(encode({ v: 1, observed: null, ...consent }))
  }
  await grantFor(vendor, node.admin, { ...ask, duration_s: 3600 })
  earlier = await openSession(vendor, 'press-07', 'plc')
  expect(questions()).toEqual([])
  await site.zone({ consent_required: true }, [node.admin, second])
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
  site[Symbol.dispose]()
})
beforeEach(() => {
  said = 'yes'
  agent.opened.length = 0
})

const questions = () => agent.opened.filter((open) => (open as Asking).protocol === 'consent')
const attempt = (who = vendor) => who.call<OpenedSession & Problem>('POST', '/sessions', ask)
const denied = ({ body }: Answer<Problem>) => body.denials?.map(({ code }) => code)
const logged = (code: string, word: string) =>
  until(`${code} with ${word}`, () =>
    node.events().find((event) => event.code === code && event.text.includes(word)),
  )

test('what nobody was asked about ends as soon as the zone wants it', async () => {
  expect((await logged('session.end', earlier.id)).text).toContain('consent.missing')
})

test('nobody at the device is asked for somebody whom policy refuses anyway', async () => {
  expect(denied(await attempt(second))).toContain('grant.none')
  expect(questions()).toEqual([])
})

test('while it is awaited the vendor is told, and the question that they come back to is the same', async () => {
  said = { code: 'owner.asked' }
  const awaited = await attempt()
  expect(awaited.body).toMatchObject({
    code: 'owner.asked',
    detail: expect.stringContaining('have been asked and have not answered yet') as string,
    next_step: 'connect again in a moment',
  })
  await logged('session.deny', 'owner.asked')
  said = 'yes'
  const { body: session } = await attempt()
  const asked = questions() as Asking[]
  expect(asked.map(({ session: id }) => id)).toEqual([session.id, session.id])
  expect(asked[1]).toMatchObject({ process: 'plc', who: vendor.email })
  expect(asked[1]?.remaining_ms).toBeGreaterThan(500_000)
  expect((await logged('session.start', session.id)).text).toContain(
    'shift lead consented on the device',
  )
})

test('a yes holds for the connections of its session, and for no other session', async () => {
  const session = await openSession(vendor, 'press-07', 'plc')
  await using client = await Client.dial(node)
  const line = await client.line(session)
  line.write('through')
  await line.until('the echo', ({ text }) => text === 'through')
  expect(questions()).toHaveLength(1)
  const other = await openSession(vendor, 'press-07', 'plc')
  expect(questions()).toHaveLength(2)
  expect(other.id).not.toBe(session.id)
})

test('two who come back for one yes: one is let in by it, and the other asks anew', async () => {
  const both = await Promise.all([attempt(), attempt()])
  const ids = both.filter(({ status }) => status < 300).map(({ body }) => body.id)
  expect(new Set(ids).size).toBe(ids.length)
  expect(ids.length).toBeGreaterThan(0)
  for (const other of both.filter(({ status }) => status >= 300))
    expect(denied(other)).toEqual(['consent.missing'])
  expect((await attempt()).status).toBeLessThan(300)
})

test('what the device itself refuses says nothing of its people: the question before them stands', async () => {
  const codes = ['owner.asked', 'agent.draining', 'agent.full', 'open.aborted']
  for (const code of codes) {
    said = { code }
    expect(denied(await attempt())).toEqual([code])
  }
  said = 'yes'
  const { body: session } = await attempt()
  expect(questions().map(({ session: id }) => id)).toEqual(Array(5).fill(session.id))
  await vendor.ask('POST', `/sessions/${session.id}/end`)
})

test.for(['owner.denied', 'owner.silent', 'owner.busy', 'owner.unasked'])(
  '%s is told to the vendor and is in the log; the next attempt asks anew',
  async (code) => {
    said = { code }
    expect(denied(await attempt())).toEqual([code])
    await logged('session.deny', code)
    expect(denied(await attempt())).toEqual([code])
    const [one, other] = questions()
    expect(one?.session).not.toBe(other?.session)
  },
)

test.for([
  ['refuses the question', { code: 'open.metadata' }],
  ['answers without saying who', 'nothing'],
] as const)('an agent of an older version that %s lets nobody in', async ([, as]) => {
  said = as
  const { body } = await attempt()
  expect(body).toMatchObject({ detail: expect.stringContaining('older version') as string })
})

test.for([
  ['an hour ahead is taken for now', 3600, []],
  ['a day behind is too old to count', -86_400, ['consent.missing']],
] as const)('a yes by a clock %s', async ([, skew, codes]) => {
  said = { at: nowS() + skew }
  expect(denied(await attempt()) ?? []).toEqual(codes)
})

test('a yes that has become too old is not repeated: the next attempt asks anew', async () => {
  said = { at: nowS() - 86_400 }
  expect(denied(await attempt())).toEqual(['consent.missing'])
  said = 'yes'
  const { body: session } = await attempt()
  const asked = questions().map(({ session: id }) => id)
  expect(asked).toHaveLength(2)
  expect(asked[1]).toBe(session.id)
  expect(asked[0]).not.toBe(session.id)
})

describe('questions that stand', () => {
  test('end with their time, and are taken once', () => {
    const all = new Questions()
    const one = all.of('a', 1000, 0)
    expect(all.of('a', 2000, 999)).toBe(one)
    const next = all.of('a', 2000, 1000)
    expect(next).not.toBe(one)
    expect(all.settle('a', one)).toBe(false)
    expect([all.settle('a', next), all.settle('a', next)]).toEqual([true, false])
  })

  test('are bounded: the oldest is forgotten, and its yes opens nothing', () => {
    const all = new Questions()
    const one = all.of('0', 1000, 0)
    for (let at = 1; at <= 4096; at++) all.of(String(at), 1000, 0)
    expect(all.settle('0', one)).toBe(false)
  })

  test('nobody said anything: null', () => {
    expect(heard(undefined, 0)).toBeNull()
  })
})
