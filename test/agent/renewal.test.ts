/** Renewal of a device: in time, again and again, across power cuts, rollovers and wrong clocks. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { instant, openIssuers, softwareSigner } from '#ca'
import { enrolAgent } from '#agent'
import { readCertificate } from '../../ca/der/certificate.ts'
import { DeviceClock } from '../../agent-tunnel/agent/clock.ts'
import { AgentError } from '../../agent-tunnel/agent/errors.ts'
import { Identity, type Pair } from '../../agent-tunnel/agent/identity.ts'
import { Renewal } from '../../agent-tunnel/agent/renewal.ts'
import { make, named } from '../ca/maker.ts'
import { DAY, HOUR, newHouse, newKey, TENANT } from '../ca/support.ts'
import { rounds } from '../support/patience.ts'
import { configOf, Directory, enrolled, running } from './device.ts'
import { FakeGateway } from './gateway.ts'
import { renewOnce } from './renewing.ts'

const program = fileURLToPath(new URL('programs/renew.ts', import.meta.url))
const undo: { [Symbol.asyncDispose]?: () => Promise<void>; [Symbol.dispose]?: () => void }[] = []
afterEach(async () => {
  for (const each of undo.splice(0).toReversed()) {
    await each[Symbol.asyncDispose]?.()
    each[Symbol.dispose]?.()
  }
})

async function device(options: Parameters<typeof FakeGateway.start>[0] = {}) {
  const gateway = await FakeGateway.start(options)
  const directory = new Directory()
  undo.push(gateway, directory)
  const config = await enrolled(gateway, directory)
  return { gateway, directory, config, identity: new Identity(directory.path) }
}

/** Runs the program; gives what it printed, or the signal that ended it. */
async function renewing(directory: string, deadly: number) {
  const child = spawn(process.execPath, [program, directory, String(deadly)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [out, err] = ['', '']
  child.stdout.on('data', (part: Buffer) => (out += part.toString()))
  child.stderr.on('data', (part: Buffer) => (err += part.toString()))
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  return { code, signal, out, err }
}

test('kill -9 before every change to the files: the working pair stays, and the next try gets through', async () => {
  const { gateway, directory, identity } = await device()
  const working = identity.pairs()[0]!
  identity.markConnected(working.slot)
  const whole = await renewing(directory.path, 0)
  expect(whole, whole.err).toMatchObject({ code: 0 })
  const changes = Number(whole.out)
  expect(changes).toBeGreaterThan(5)
  for (let deadly = 1; deadly <= changes; deadly++) {
    expect((await renewing(directory.path, deadly)).signal).toBe('SIGKILL')
    const held = new Identity(directory.path).pairs()
    expect(held.map(({ leaf }) => leaf.serialNumber)).toContain(working.leaf.serialNumber)
    // The old one still renews, so whatever was half done is begun anew.
    const next = await renewOnce(directory.path)
    expect(next.leaf.serialNumber).not.toBe(working.leaf.serialNumber)
    expect(new Identity(directory.path).pairs()).toHaveLength(2)
  }
  const rows = await gateway.bench.store.listCertificates(TENANT, {
    profile: 'device',
    limit: 1_000,
  })
  expect(new Set(rows.map((row) => row.subject))).toEqual(new Set(['press-07']))
  expect(identity.connected).toBe(working.slot)
}, 180_000)

test('the connection breaks after the request was granted: the same key asks again and gets the same certificate', async () => {
  const { gateway, directory, identity } = await device()
  identity.markConnected(identity.pairs()[0]!.slot)
  gateway.onEst = async (request) =>
    request.url?.endsWith('reenroll') === true ? 'drop' : 'answer'
  await expect(renewOnce(directory.path)).rejects.toMatchObject({ code: 'enrol.failed' })
  gateway.onEst = async () => 'answer'
  const next = await renewOnce(directory.path)
  const filter = { profile: 'device' }
  const rows = await gateway.bench.store.listCertificates(TENANT, filter)
  expect(rows.map((row) => row.serial)).toContain(next.leaf.serialNumber.toLowerCase())
  expect(rows).toHaveLength(2)
})

const lost = [
  [
    'its first certificate',
    async ({ gateway, config }: Awaited<ReturnType<typeof device>>, fresh: Directory) => {
      const own = { ...config, dataDir: fresh.path }
      return async () =>
        await enrolAgent(own, { token: await gateway.bench.token(), log: () => undefined })
    },
  ],
  [
    'a renewal',
    async ({ gateway, directory, identity }: Awaited<ReturnType<typeof device>>) => {
      identity.markConnected(identity.pairs()[0]!.slot)
      return async () => await renewOnce(directory.path, () => gateway.bench.now)
    },
  ],
] as const
test.for(lost)(
  'the key that waits for %s was revoked as compromised meanwhile: another key asks, and the device goes on',
  async ([, prepare]) => {
    const scene = await device()
    const { gateway } = scene
    const fresh = new Directory()
    undo.push(fresh)
    const ask = await prepare(scene, fresh)
    gateway.bench.now += HOUR
    gateway.onEst = async (request) => (request.method === 'POST' ? 'drop' : 'answer')
    await expect(ask()).rejects.toMatchObject({ code: 'enrol.failed' })
    const [row] = await gateway.bench.store.listCertificates(TENANT, { profile: 'device' })
    const at = instant(gateway.bench.now)
    await gateway.bench.store.revoke(TENANT, { serial: row!.serial }, 'keyCompromise', at)
    gateway.onEst = async () => 'answer'
    gateway.bench.now += HOUR
    const next = await ask()
    const issued = await gateway.bench.store.findCertificate(next.leaf.serialNumber.toLowerCase())
    expect(issued).toMatchObject({ state: 'active' })
    expect(issued?.spkiSha256).not.toBe(row?.spkiSha256)
  },
)

/** A new issuing CA under the root of before. */
function rollOver({ bench }: FakeGateway) {
  const { authority, keys } = bench.house
  const root = readCertificate(authority.root)
  const key = newKey()
  const { certificate } = make({
    names: named('Sallyport issuing CA next'),
    key,
    by: { key: keys.root, name: root.subject },
    ca: { pathLength: 0 },
    notBefore: bench.now - HOUR,
    notAfter: bench.now + 3 * 365 * DAY,
  })
  const rolled = openIssuers({
    roots: [authority.root],
    active: { certificate, signer: softwareSigner(key) },
    retired: [{ certificate: authority.issuing }],
  })
  bench.issuers = () => rolled
  return rolled
}

test('a device learns of a new issuing CA before it signs for it', async () => {
  const { gateway, directory } = await device()
  gateway.bench.now += 48 * HOUR
  const { active } = rollOver(gateway)
  const next = await renewOnce(directory.path, () => gateway.bench.now)
  expect(readCertificate(new Uint8Array(next.leaf.raw)).issuer).toEqual(active.subject)
  expect(next.chainPem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2)
})

test('18 months away across a rollover, the clock at 1970: late, told so, with its old key; 202; approved, renewed', async () => {
  const { gateway, directory, identity } = await device()
  const before = identity.pairs()[0]!
  const { bench } = gateway
  bench.now += 548 * DAY
  const { active } = rollOver(gateway)
  Object.assign(bench.house, { issuers: bench.issuers() })
  await gateway.listen(await gateway.face())
  const denial = { code: 'renew.too_late', msg: 'it ended too long ago', remedy: 'approve' }
  bench.decision = { allow: false, denials: [denial], decision_id: 'd_late', obligations: {} }
  const options = bench.options.bind(bench)
  bench.options = (extra) => options({ pending: bench.pending, ...extra })
  const waits = renewOnce(directory.path, () => 0)
  await expect(waits).rejects.toMatchObject({
    code: 'enrol.pending',
    retryAfterMs: expect.any(Number),
  })
  expect(bench.asked.at(-1)?.facts.renew).toMatchObject({ same_key: true, late_used: false })
  const at = instant(bench.now)
  const [row] = await bench.pending.list(TENANT, at)
  const answer = { state: 'approved', by: 'iss|olga', at, expiresAt: instant(at + HOUR) } as const
  await bench.pending.decide(TENANT, row!.id, answer)
  const next = await renewOnce(directory.path, () => 0)
  expect(readCertificate(new Uint8Array(next.leaf.raw)).issuer).toEqual(active.subject)
  expect(next.leaf.checkPrivateKey(before.key)).toBe(true)
})

test('enrolled with the clock at 1970; at 2100 refused with the date that the device believes', async () => {
  const gateway = await FakeGateway.start()
  const [early, late] = [new Directory(), new Directory()]
  undo.push(gateway, early, late)
  const token = await gateway.bench.token()
  const pair = await enrolAgent(configOf(gateway, early), {
    token,
    log: () => undefined,
    system: () => 0,
  })
  expect(pair.notAfter).toBeGreaterThan(Date.now())
  const system = () => Date.UTC(2100, 0, 1)
  const refused = enrolAgent(configOf(gateway, late), { token, log: () => undefined, system })
  await expect(refused).rejects.toMatchObject({
    code: 'gateway.expired',
    message: expect.stringContaining('2100-01-01'),
    next: expect.stringContaining('Set the clock'),
  })
})

test('the gateway says the certificate has ended: the agent renews at once, whatever its clock says', async () => {
  const { gateway, config } = await device()
  gateway.refuses = () => 'peer.expired'
  await using agent = running(config)
  await expect
    .poll(() => gateway.asked.filter((path) => path.endsWith('simplereenroll')).length)
    .toBe(1)
  gateway.refuses = () => undefined
  await gateway.nextTunnel()
  await expect.poll(() => agent.logged('certificate.renewed').length).toBe(1)
})

test('another root: refused with the way back; a mistyped pin changes nothing; the new pin and a token do it', async () => {
  const { gateway, directory, config, identity } = await device()
  const before = identity.pairs()[0]!
  const next = await FakeGateway.start({ house: await newHouse(Date.now()) })
  undo.push(next)
  const face = await next.face()
  await gateway.listen(face)
  gateway.bench.issuers = () => next.bench.house.issuers
  await expect(renewOnce(directory.path)).rejects.toMatchObject({
    code: 'gateway.untrusted',
    next: expect.stringContaining('--ca-sha256'),
  })
  gateway.bench.now += 60_000
  const token = await gateway.bench.token()
  const quiet = { token, log: () => undefined }
  const typo = { ...config, rootSha256: 'ab'.repeat(32) }
  await expect(enrolAgent(typo, quiet)).rejects.toMatchObject({ code: 'gateway.pin' })
  expect(new Identity(directory.path).anchors(config.rootSha256)).toBeDefined()
  await expect(renewOnce(directory.path)).rejects.toMatchObject({ code: 'gateway.untrusted' })
  const pair = await enrolAgent({ ...config, rootSha256: next.pin }, quiet)
  expect(pair.leaf.serialNumber).not.toBe(before.leaf.serialNumber)
  expect((await renewOnce(directory.path)).leaf.checkPrivateKey(pair.key)).toBe(false)
  const other = { ...config, device: 'press-08' }
  await expect(enrolAgent(other, quiet)).rejects.toMatchObject({ code: 'config.other_device' })
})

describe('the renewal timer', () => {
  const LIFE = 72 * HOUR
  const START = Date.UTC(2027, 0, 1)

  /** Monotonic time and timers that move only when told. */
  class Hand {
    at = 0
    readonly timers = new Set<{ due: number; run: () => void }>()
    now = () => this.at as never
    after(ms: number, run: () => void): () => void {
      const timer = { due: this.at + ms, run }
      this.timers.add(timer)
      return () => void this.timers.delete(timer)
    }
    async advance(ms: number): Promise<void> {
      const until = this.at + ms
      for (const _ of rounds('every wait moves the clock')) {
        const [next] = [...this.timers].toSorted((a, b) => a.due - b.due)
        if (next === undefined || next.due > until) break
        this.timers.delete(next)
        this.at = Math.max(this.at, next.due)
        next.run()
        for (let n = 0; n < 5; n++) await Promise.resolve()
      }
      this.at = until
    }
  }

  function timer(
    options: { jitter?: number; renew?: () => Promise<Pair>; system?: () => number } = {},
  ) {
    const hand = new Hand()
    const system = options.system ?? (() => START + hand.at)
    const clock = new DeviceClock({ monotonic: hand as never, system })
    const pair = {
      notBefore: START,
      notAfter: START + LIFE,
      leaf: { validTo: '', serialNumber: '' },
    } as Pair
    const tries: number[] = []
    const levels: string[] = []
    const renewal = new Renewal({
      clock,
      monotonic: hand as never,
      random: () => options.jitter ?? 0.5,
      log: (level) => void levels.push(level),
      pair: () => pair,
      renew: async () => {
        tries.push(hand.at)
        if (options.renew !== undefined) return await options.renew()
        throw new Error('the gateway is away')
      },
      renewed: () => undefined,
    })
    undo.push(renewal)
    return { hand, clock, tries, levels }
  }

  test.for([
    [0, 2 / 3 - 0.05],
    [0.5, 2 / 3],
    [0.999_999, 2 / 3 + 0.05],
  ] as const)('with jitter %d it is first tried at %d of the life', async ([jitter, share]) => {
    const { hand, tries } = timer({ jitter })
    await hand.advance(LIFE * share - 61_000)
    expect(tries).toEqual([])
    await hand.advance(122_000)
    expect(tries.length).toBeGreaterThan(0)
  })

  test('tried again after a twentieth of the rest, at least 30 s, past the end too; alarms at 75 and 90 %', async () => {
    const { hand, tries, levels } = timer()
    await hand.advance(LIFE + HOUR)
    const gaps = tries.slice(1).map((at, n) => at - tries[n]!)
    expect(gaps[0]).toBeCloseTo(LIFE / 3 / 20, -3)
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(30_000)
    expect(tries.filter((at) => at > LIFE).length).toBeGreaterThan(100)
    expect(levels.filter((level) => level === 'error')).toHaveLength(2)
  })

  test('a clock that is put right by years does not put off the next try by years', async () => {
    const { hand, clock, tries } = timer({ system: () => Date.UTC(2090, 0, 1) })
    await hand.advance(1_000)
    expect(tries).toHaveLength(1)
    clock.told(START + LIFE * 0.8)
    await hand.advance(2 * HOUR)
    expect(tries.length).toBeGreaterThan(1)
  })

  test('a clock that stays wrong renews once a minute at most; Retry-After is kept', async () => {
    const pair = {
      notBefore: START,
      notAfter: START + LIFE,
      leaf: { validTo: '', serialNumber: '' },
    } as Pair
    const wild = timer({ system: () => Date.UTC(2090, 0, 1), renew: async () => pair })
    await wild.hand.advance(10 * 60_000)
    expect(wild.tries.length).toBeLessThanOrEqual(11)
    const told = new AgentError('enrol.pending', 'wait', 'wait', { retryAfterMs: 600_000 })
    const waiting = timer({ system: () => START + LIFE + HOUR, renew: () => Promise.reject(told) })
    await waiting.hand.advance(599_000)
    expect(waiting.tries).toHaveLength(1)
    await waiting.hand.advance(2_000)
    expect(waiting.tries).toHaveLength(2)
  })
})
