/** The device as a witness: what the gateway shows of its log decides whether a session is served here. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, afterEach, expect, test, vi } from 'vitest'
import type { AgentConfig, RunOptions } from '#agent'
import { HeadKeeper } from '#heads'
import type { Offer } from '#tunnel'
import { signCheckpoint } from '../../audit/checkpoint.ts'
import { noteSigner } from '../../audit/note.ts'
import { consistencyProof, leafHash, rootOf } from '../../audit/tree.ts'
import { Forwarder, type ForwardOptions } from '../../agent-tunnel/agent/forward.ts'
import { LogWatch } from '../../agent-tunnel/agent/witness.ts'
import { HandClock } from '../support/clock.ts'
import { until } from '../support/node.ts'
import { Directory, enrolled, running, type Running } from './device.ts'
import { FakeGateway, openStream, type Held } from './gateway.ts'

const origin = 'main.sallyport.internal/audit/gw1/1'
const signers = [
  noteSigner(origin, generateKeyPairSync('ed25519').privateKey),
  noteSigner(origin, generateKeyPairSync('ml-dsa-44').privateKey),
]
const strangers = (log: string) => [noteSigner(log, generateKeyPairSync('ed25519').privateKey)]
let gateway: FakeGateway
let directory: Directory
let config: AgentConfig
let agent: Running | undefined

beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(async () => {
  await gateway[Symbol.asyncDispose]()
})
beforeEach(async () => {
  directory = new Directory()
  config = await enrolled(gateway, directory)
  welcome(origin)
})
afterEach(async () => {
  await agent?.stop()
  directory[Symbol.dispose]()
})

function welcome(log: string | undefined): void {
  gateway.welcome = () => ({
    device: config.device,
    now_ms: Date.now(),
    gateway: 'gw1',
    epoch: 1,
    ...(log === undefined ? {} : { log }),
  })
}

function history(size: number, tag: string) {
  return Array.from({ length: size }, (_, i) => leafHash(Buffer.from(`${tag}${i}`)))
}

/** Waits until the device asks, and shows it a log of `size` events; `tag` makes two histories differ. */
async function show(held: Held, size: number, tag = 'a', log = origin): Promise<void> {
  const asked = await until('the device asks for the log', () =>
    held.reports.find(({ type }) => type === 'log'),
  )
  const from = Number(asked['size'])
  const leaves = history(size, tag)
  const perfect = (level: number, index: number) =>
    rootOf(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level))
  const proof = from > 0 && from < size ? consistencyProof(perfect, from, size) : []
  const sign = log === origin ? signers : strangers(log)
  const head = {
    type: 'log',
    origin: log,
    keys: sign.map(({ verifier }) => verifier.vkey),
    note: signCheckpoint({ origin: log, size, root: rootOf(leaves) }, sign, Date.now()).note,
    from,
    proof: proof.map((hash) => Buffer.from(hash).toString('base64')),
  }
  held.control.write(Buffer.from(`${JSON.stringify(head)}\n`))
}

/** The code with which the device refuses a session; what it has no target for it refuses all the same. */
async function refusalOf(held: Held): Promise<string> {
  return await openStream(held, 'plc').then(
    () => 'served',
    (error: unknown) => (error as { code: string }).code,
  )
}

const NO_TARGET = 'target.unknown'

async function dial(options: Partial<RunOptions> = {}, own = config): Promise<Held> {
  await agent?.stop()
  const next = gateway.nextTunnel()
  const witness = new HeadKeeper(join(directory.path, 'witness'), () => Date.now())
  agent = running(own, { witness, ...options })
  return await next
}

const conflict = () =>
  (
    JSON.parse(readFileSync(join(directory.path, 'status.json'), 'utf8')) as {
      log_conflict: { code: string } | null
    }
  ).log_conflict

test('a log that goes on is followed over tunnels and restarts, and sessions reach the targets', async () => {
  const first = await dial()
  await show(first, 3)
  expect(await refusalOf(first)).toBe(NO_TARGET)
  const second = await dial()
  await show(second, 10)
  expect(second.reports.find(({ type }) => type === 'log')).toMatchObject({ size: 3 })
  expect(await refusalOf(second)).toBe(NO_TARGET)
  expect(conflict()).toBeNull()
})

test('no session is served before the log was shown', async () => {
  const held = await dial()
  let answered = ''
  const asking = refusalOf(held).then((code) => (answered = code))
  await until('the device asks', () => held.reports.some(({ type }) => type === 'log'))
  expect(answered).toBe('')
  await show(held, 3)
  expect(await asking).toBe(NO_TARGET)
})

test.for([
  { name: 'rewritten', size: 12, tag: 'b', code: 'head.unproven' },
  { name: 'put back', size: 5, tag: 'a', code: 'head.rollback' },
  { name: 'split', size: 9, tag: 'b', code: 'head.fork' },
])('a log that was $name opens no session, and the gateway is told', async (row) => {
  const before = await dial()
  await show(before, 9)
  expect(await refusalOf(before)).toBe(NO_TARGET)
  const after = await dial()
  await show(after, row.size, row.tag)
  expect(await refusalOf(after)).toBe('log.conflict')
  const told = await until('the gateway is told', () =>
    after.reports.find(({ type }) => type === 'log_conflict'),
  )
  expect(String(told['note'])).toMatch(new RegExp(`^${origin}\n9\n`))
  expect(conflict()).toMatchObject({ code: row.code })
  expect(agent?.logged('log.conflict')).toMatchObject([{ level: 'error' }])
})

test('a log of a new name opens no session until the owner accepts it, and the gateway is told', async () => {
  const before = await dial()
  await show(before, 9)
  expect(await refusalOf(before)).toBe(NO_TARGET)
  const other = 'main.sallyport.internal/audit/gw1/2'
  welcome(other)
  const after = await dial()
  await show(after, 3, 'b', other)
  expect(await refusalOf(after)).toBe('log.conflict')
  const told = await until('the gateway is told', () =>
    after.reports.find(({ type }) => type === 'log_conflict'),
  )
  expect(String(told['note'])).toMatch(new RegExp(`^${origin}\n9\n`))
  expect(conflict()).toMatchObject({ code: 'head.other' })
  new HeadKeeper(join(directory.path, 'witness'), () => Date.now()).accept(other, [])
  const accepted = await dial()
  await show(accepted, 3, 'b', other)
  expect(await refusalOf(accepted)).toBe(NO_TARGET)
  expect(conflict()).toBeNull()
})

/** What OPEN asks for, as the gateway sends it; `cancelled` as in Offer. */
function offered(asked: object) {
  const refused: string[] = []
  const offer = {
    id: 1,
    kind: 'tcp' as const,
    metadata: Buffer.from(JSON.stringify(asked)),
    cancelled: false,
    accept: () => {
      throw new Error('it was taken back')
    },
    refuse: (code: string) => void refused.push(code),
    onCancel: undefined,
  }
  return { offer: offer satisfies Offer, refused }
}

test.for(['served', 'refused'] as const)(
  'an OPEN that was taken back while it waited for the log is not %s',
  async (how) => {
    const witness = {
      held: () => null,
      before: () => null,
      see: () =>
        how === 'served'
          ? ({ kind: 'same' } as const)
          : ({ kind: 'conflict', code: 'head.fork', message: 'another' } as const),
      hidden: () => null,
    }
    const options = { witness, onConflict: 'refuse' as const, monotonic: new HandClock() }
    using watch = new LogWatch({ ...options, log: () => {}, conflict: () => {} }, origin, () => {})
    const [kept, back] = [offered({}), offered({})]
    const served: Offer[] = []
    const serve = async (offer: Offer) => void served.push(offer)
    const both = [kept, back].map(({ offer }) => watch.admit(offer, serve))
    back.offer.cancelled = true
    watch.shown({})
    await Promise.all(both)
    expect(served).toEqual(how === 'served' ? [kept.offer] : [])
    expect([kept.refused, back.refused]).toEqual([how === 'served' ? [] : ['log.conflict'], []])
  },
)

test.for([
  { name: 'this very log', held: 9, before: null, asks: { type: 'log', size: 9 } },
  { name: 'nothing', held: null, before: null, asks: { type: 'log', size: 0 } },
  {
    name: 'an epoch of it that ended',
    held: null,
    before: { origin: 'plant.example/audit/gw1/1', size: 7 },
    asks: { type: 'log', size: 7, held: 'plant.example/audit/gw1/1' },
  },
])('a device that holds $name asks from there', ({ held, before, asks }) => {
  const witness = {
    held: () => (held === null ? null : { size: held, note: '' }),
    before: () => before,
    see: () => ({ kind: 'followed' }) as const,
    hidden: () => null,
  }
  const told: unknown[] = []
  const logged: string[] = []
  const options = { witness, onConflict: 'refuse' as const, monotonic: new HandClock() }
  const log = (_level: string, what: string): void => void logged.push(what)
  using watch = new LogWatch(
    { ...options, log, conflict: () => {} },
    'plant.example/audit/gw1/2',
    (message) => told.push(message),
  )
  watch.shown({})
  expect(told).toEqual([asks])
  expect(logged).toEqual(['log.followed'])
})

test('an OPEN that was taken back before it is served uses no grant, asks nobody and dials nothing', async () => {
  const admit = vi.fn<() => never>()
  const ask = vi.fn<() => never>()
  const target = { kind: 'tcp', endpoint: { address: '127.0.0.1', port: 9 }, consent: true }
  const forwarder = new Forwarder({
    targets: new Map([['plc', target]]),
    clock: new HandClock(),
    consents: { ask },
    twoKeys: { admit },
    log: () => {},
  } as unknown as ForwardOptions)
  const asked = { v: 1, session: `s_${'0'.repeat(26)}`, process: 'plc', remaining_ms: 60_000 }
  const { offer, refused } = offered(asked)
  offer.cancelled = true
  await forwarder.serve(offer)
  expect([admit.mock.calls, ask.mock.calls, refused]).toEqual([[], [], []])
})

test('where the file says report, it is told and served', async () => {
  await show(await dial(), 9)
  await until('it is kept', () => agent?.logged('log.first').length === 1)
  const after = await dial({}, { ...config, onLogConflict: 'report' })
  await show(after, 5)
  expect(await refusalOf(after)).toBe(NO_TARGET)
  expect(conflict()).toMatchObject({ code: 'head.rollback' })
})

test('a gateway that names no log is served, unless it did before', async () => {
  welcome(undefined)
  expect(await refusalOf(await dial())).toBe(NO_TARGET)
  welcome(origin)
  await show(await dial(), 9)
  await until('it is kept', () => agent?.logged('log.first').length === 1)
  welcome(undefined)
  expect(await refusalOf(await dial())).toBe('log.conflict')
  expect(conflict()).toMatchObject({ code: 'head.hidden' })
})

test('heads that cannot be kept are no proof that all is well', async () => {
  const witness = {
    held: () => null,
    before: () => null,
    see: () => {
      throw new Error('no space left')
    },
    hidden: () => null,
  }
  const held = await dial({ witness })
  await show(held, 3)
  expect(await refusalOf(held)).toBe('log.conflict')
  expect(conflict()).toMatchObject({ code: 'head.unkept' })
})
