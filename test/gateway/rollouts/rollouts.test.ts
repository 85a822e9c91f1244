/** The rollouts of a node: who is offered what when, what is recorded first, and what pauses by itself. */
import { generateKeyPairSync, hash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import type { AuditLog, EventInput } from '#audit'
import { signUpdate, type Update } from '#update'
import type { Device } from '../../../gateway/devices/device.ts'
import { RolledAgents } from '../../../gateway/rollouts/agents.ts'
import { lostAfter } from '../../../gateway/rollouts/rollout.ts'
import type { By, NewRollout } from '../../../gateway/rollouts/asked.ts'
import { Rollouts } from '../../../gateway/rollouts/rollouts.ts'
import type { Said } from '../../../gateway/rollouts/said.ts'
import { SqliteRolloutStore } from '../../../gateway/store/sqlite/rollouts.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { HandClock } from '../../support/clock.ts'

const { privateKey } = generateKeyPairSync('ed25519')
const BUNDLE = Buffer.from('an agent')
const START_S = 1_800_000_000

function manifestOf(change: Partial<Update> = {}): string {
  const facts = { from: '0.1.0', node: '26.10.0', health: 300, notAfter: START_S + 86_400 }
  const sha256 = hash('sha256', BUNDLE, 'hex')
  return signUpdate(
    { version: '0.2.0', sha256, size: BUNDLE.length, ...facts, ...change },
    privateKey,
  )
}

const by = {
  subject: {
    id: 'iss|oda',
    email: 'oda@plant.example',
    vendor: null,
    party: 'staff',
    issuer: 'iss',
    authn: {
      methods: ['password'],
      acr: '1',
      at: START_S,
    },
  },
  source: { ip: '192.0.2.7' },
  decision: { id: 'd_1', revision: 'r1', codes: [] },
} as unknown as By

const asked = (more: Partial<NewRollout> = {}): NewRollout => ({
  manifest: manifestOf(),
  zone: null,
  stages: [100],
  soak_s: 0,
  max_failures: 0,
  reason: 'service',
  ...more,
})

const idle: Said = { version: '0.1.0', trial: null, taking: null, outcome: null, refused: null }

/** A connected device, and what it was told. */
class Connected {
  readonly device: string
  readonly told: Record<string, unknown>[] = []
  constructor(device: string) {
    this.device = device
  }
  readonly say = (message: Readonly<Record<string, unknown>>) => void this.told.push(message)
  get offered(): number {
    return this.told.filter(({ act }) => act === 'offer').length
  }
}

let folder: string
let seconds: number
let clock: HandClock
let events: EventInput[]
let fails: boolean
/** So many events are taken. */
let failsFrom: number
let reports: number
let devices: Device[]
let rollouts: Rollouts
let agents: RolledAgents
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-rollouts-'))
  const thread = await SqliteThread.open(':memory:')
  seconds = START_S
  clock = new HandClock()
  events = []
  fails = false
  failsFrom = Infinity
  reports = 0
  devices = ['a', 'b', 'c', 'd'].map((id) => ({
    id,
    zone: 'default',
    state: 'active',
    labels: {},
    created_at: START_S,
  }))
  agents = new RolledAgents(join(folder, 'updates'))
  rollouts = new Rollouts({
    store: new SqliteRolloutStore(thread),
    devices: { list: async () => devices },
    agents,
    log: {
      append: (async (event: EventInput) => {
        if (fails || events.length >= failsFrom) throw new Error('no room')
        events.push(event)
      }) as unknown as AuditLog['append'],
    },
    clock,
    now: () => seconds * 1000,
    report: () => void reports++,
  })
  return async () => {
    rollouts[Symbol.dispose]()
    await thread[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true })
    expect(reports).toBe(0)
  }
})

const codes = () =>
  events.map(
    ({ code, data }) => `${code} ${String(Object(data)['act'] ?? Object(data)['outcome'])}`,
  )
const states = async (id: string) =>
  Object.fromEntries(
    (await rollouts.updates(id, 100)).map((one) => [one.device, one.code ?? one.state]),
  )

async function connect(device: string, said: Partial<Said> = {}): Promise<Connected> {
  const one = new Connected(device)
  await rollouts.heard(one, { ...idle, ...said })
  return one
}

describe('a rollout', () => {
  test('is recorded, kept for devices to fetch, and offered to those that are here and those that come', async () => {
    const here = await connect('a')
    const { id, sha256 } = await rollouts.start(asked(), BUNDLE, by)
    expect(here.told).toEqual([
      { type: 'update', act: 'offer', rollout: id, manifest: manifestOf() },
    ])
    expect(agents.files()).toMatchObject([{ name: sha256, sha256, bytes: BUNDLE.length }])
    const late = await connect('b')
    clock.pass(50)
    await rollouts.look()
    expect(late.offered).toBe(1)
    expect(events[0]).toMatchObject({
      code: 'rollout.change',
      actor: { uid: 'iss|oda' },
      decisions: [{ id: 'd_1' }],
    })
    expect(codes()).toEqual([
      'rollout.change start',
      'device.update offered',
      'device.update offered',
    ])
  })

  test('goes to no device of another zone, none that is not in use, and none that was not named', async () => {
    devices[1] = { ...devices[1]!, zone: 'line-3' }
    devices[2] = { ...devices[2]!, state: 'quarantined' }
    const all = await Promise.all(['a', 'b', 'c', 'stranger'].map((id) => connect(id)))
    await rollouts.start(asked({ zone: 'default' }), BUNDLE, by)
    expect(all.map(({ offered }) => offered)).toEqual([1, 0, 0, 0])
  })

  test('is taken, on trial, heard and done; each step once in the log', async () => {
    devices.length = 1
    const before = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(before, { ...idle, taking: id })
    await rollouts.heard(before, { ...idle, taking: id })
    rollouts.left(before)
    const after = await connect('a', { version: '0.2.0', trial: id })
    expect(after.told).toEqual([{ type: 'update', act: 'heard', rollout: id }])
    await rollouts.heard(after, {
      ...idle,
      version: '0.2.0',
      outcome: { rollout: id, fault: null },
    })
    expect(after.told).toHaveLength(2)
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('done')
    expect(codes()).toEqual([
      'rollout.change start',
      ...['offered', 'taking', 'trial', 'updated'].map((state) => `device.update ${state}`),
      'rollout.change done',
    ])
  })

  test('of a version that a device has already counts it as updated', async () => {
    devices.length = 1
    const one = await connect('a', { version: '0.2.0' })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(one, {
      ...idle,
      version: '0.2.0',
      refused: { rollout: id, code: 'update.rollback' },
    })
    expect(await states(id)).toEqual({ a: 'updated' })
  })

  test('goes to the next share by itself, in its time', async () => {
    // So many that neither half of them is empty, whatever the id of the rollout.
    devices = Array.from({ length: 200 }, (_, nth) => ({ ...devices[0]!, id: `press-${nth}` }))
    const all: Connected[] = []
    for (const { id } of devices) all.push(await connect(id))
    const { id } = await rollouts.start(asked({ stages: [50, 100], soak_s: 600 }), BUNDLE, by)
    const first = all.filter(({ offered }) => offered === 1)
    const rest = all.filter(({ offered }) => offered === 0)
    for (const one of first)
      await rollouts.heard(one, { ...idle, outcome: { rollout: id, fault: null } })
    seconds += 599
    await rollouts.look()
    expect(rest.map(({ offered }) => offered)).toEqual(rest.map(() => 0))
    seconds += 1
    await rollouts.look()
    expect(rest.map(({ offered }) => offered)).toEqual(rest.map(() => 1))
    expect(codes()).toContain('rollout.change stage')
  })

  test('pauses by itself with the first failure, takes back what waits, and offers nothing more', async () => {
    const [a, b] = [await connect('a'), await connect('b')]
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(b, { ...idle, taking: id })
    await rollouts.heard(a, { ...idle, outcome: { rollout: id, fault: 'update.unhealthy' } })
    await rollouts.look()
    const rollout = await rollouts.find(id)
    expect(rollout).toMatchObject({ state: 'paused', reason: '1 failed: update.unhealthy' })
    expect(b.told.at(-1)).toEqual({ type: 'update', act: 'withdraw', rollout: id })
    const late = await connect('c')
    await rollouts.look()
    expect(late.told).toEqual([])
    expect(events.findLast(({ code }) => code === 'rollout.change')).toMatchObject({
      data: { act: 'pause' },
    })
    expect(events.at(-1)).not.toHaveProperty('actor')
  })

  test('does not wait for ever for a device that went with the update', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    seconds += lostAfter({ health: 300 }) - 1
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    seconds += 1
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
    expect((await rollouts.find(id)).state).toBe('paused')
    // It was only slow.
    await connect('a', { outcome: { rollout: id, fault: null } })
    expect(await states(id)).toEqual({ a: 'updated' })
  })

  test('has the time of a device that says when it starts the update run from there, and none before', async () => {
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: null })
    rollouts.left(a)
    seconds += 10 * lostAfter({ health: 300 })
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    const back = await connect('a', { taking: id, starting: null })
    expect(back.told).toEqual([])
    await rollouts.heard(back, { ...idle, taking: id, starting: id })
    // It does not start before that was taken down: who is not known to have started has nothing to be lost in.
    expect(back.told).toEqual([{ type: 'update', act: 'heard', rollout: id }])
    rollouts.left(back)
    seconds += lostAfter({ health: 300 }) - 1
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'starting' })
    seconds += 1
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
    expect(codes().filter((one) => one.startsWith('device.update'))).toEqual([
      'device.update offered',
      'device.update taking',
      'device.update starting',
      'device.update lost',
    ])
  })

  test('is offered again to a device that started it and is back as it was', async () => {
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: id })
    rollouts.left(a)
    seconds += 60
    const back = await connect('a', { starting: null })
    await rollouts.look()
    expect(back.offered).toBe(1)
    rollouts.left(back)
    seconds += 10 * lostAfter({ health: 300 })
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('running')
    const again = await connect('a', { taking: id, starting: id })
    rollouts.left(again)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'starting' })
  })

  test('does not look for a device that was about to start it, was not told in time that it was heard, and waits', async () => {
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: id })
    await rollouts.heard(a, { ...idle, taking: id, starting: null })
    rollouts.left(a)
    seconds += 10 * lostAfter({ health: 300 })
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
  })

  test.for(['pause', 'abort'] as const)(
    'is taken back after %s from a device that was away then and waits still, and is not started',
    async (act) => {
      const a = await connect('a', { starting: null })
      const { id } = await rollouts.start(asked(), BUNDLE, by)
      await rollouts.heard(a, { ...idle, taking: id, starting: null })
      rollouts.left(a)
      await rollouts.change(id, act, 'line 3 produces', by)
      for (const starting of [null, id]) {
        const back = await connect('a', { taking: id, starting })
        expect(back.told).toEqual([{ type: 'update', act: 'withdraw', rollout: id }])
        expect(await states(id)).toEqual({ a: 'taking' })
      }
    },
  )

  test('that is done is not started by who was lost in it and comes back, and loses them still', async () => {
    devices.length = 1
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked({ max_failures: 1 }), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: id })
    rollouts.left(a)
    seconds += lostAfter({ health: 300 })
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('done')
    for (const starting of [null, id]) {
      const back = await connect('a', { taking: id, starting })
      expect(back.told).toEqual([{ type: 'update', act: 'withdraw', rollout: id }])
      expect(await states(id)).toEqual({ a: 'update.lost' })
    }
  })

  test('of another gateway is not started here, where nobody would look for the device', async () => {
    const a = await connect('a', { taking: 'o_other', starting: null })
    expect(a.told).toEqual([])
    await rollouts.heard(a, { ...idle, taking: 'o_other', starting: 'o_other' })
    expect(a.told).toEqual([{ type: 'update', act: 'withdraw', rollout: 'o_other' }])
    expect(events).toEqual([])
  })

  test('that was held while the line was off loses nobody when it goes on, but who stays away from then', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    await rollouts.change(id, 'pause', 'end of shift', by)
    seconds += 8 * 3600
    expect((await rollouts.change(id, 'resume', 'morning', by)).state).toBe('running')
    seconds += lostAfter({ health: 300 }) - 1
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    seconds += 1
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
  })

  test('never loses a device that left it when told to, and offers it again', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    await rollouts.change(id, 'pause', 'wait', by)
    await rollouts.heard(a, idle)
    seconds += 1
    expect((await rollouts.change(id, 'resume', 'on', by)).state).toBe('running')
    rollouts.left(a)
    seconds += 2 * lostAfter({ health: 300 })
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    const back = await connect('a')
    await rollouts.look()
    expect(back.offered).toBe(1)
    await rollouts.heard(back, { ...idle, taking: id })
    rollouts.left(back)
    seconds += lostAfter({ health: 300 })
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
  })

  test('is offered again to a device that was lost and comes back without it', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    seconds += lostAfter({ health: 300 })
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('paused')
    const back = await connect('a')
    expect(await states(id)).toEqual({ a: 'offered' })
    seconds += 1
    await rollouts.change(id, 'resume', 'it was off', by)
    expect(back.offered).toBe(1)
    await rollouts.heard(back, { ...idle, outcome: { rollout: id, fault: 'update.hung' } })
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('paused')
  })

  test('does not take a device for connected whose last words waited when it left', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    const said = rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    await said
    seconds += lostAfter({ health: 300 })
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
  })

  test('is not offered again to a device that is busy with it, and is to one that forgot it', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    seconds += 60
    await rollouts.look()
    expect(a.offered).toBe(1)
    await rollouts.heard(a, idle)
    await rollouts.look()
    expect(a.offered).toBe(2)
  })
})

describe('a person', () => {
  test('holds it, lets it go on and ends it; each is recorded with who and why', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    await rollouts.change(id, 'pause', 'wait', by)
    expect(a.told.at(-1)).toMatchObject({ act: 'withdraw' })
    await rollouts.heard(a, idle)
    seconds += 1
    expect((await rollouts.change(id, 'resume', 'go on', by)).state).toBe('running')
    expect(a.told.at(-1)).toMatchObject({ act: 'offer' })
    expect((await rollouts.change(id, 'abort', 'enough', by)).state).toBe('aborted')
    expect(codes().filter((code) => code.startsWith('rollout'))).toEqual(
      ['start', 'pause', 'resume', 'abort'].map((act) => `rollout.change ${act}`),
    )
    expect(events.at(-1)).toMatchObject({
      message: expect.stringContaining('enough') as string,
      actor: { uid: 'iss|oda' },
    })
  })

  test('lets it go on that paused by itself: what failed does not count again, one more does', async () => {
    const [a, b, c] = [await connect('a'), await connect('b'), await connect('c')]
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    const fails = async (one: Connected) => {
      await rollouts.heard(one, { ...idle, outcome: { rollout: id, fault: 'update.hung' } })
      await rollouts.look()
    }
    await fails(a)
    expect((await rollouts.find(id)).state).toBe('paused')
    const going = { state: 'running', reason: 'known' }
    expect(await rollouts.change(id, 'resume', 'known', by)).toMatchObject(going)
    await fails(a)
    expect(await rollouts.find(id)).toMatchObject(going)
    expect(await states(id)).toMatchObject({ a: 'update.hung' })
    await fails(b)
    expect(await rollouts.find(id)).toMatchObject({
      state: 'paused',
      reason: '1 failed: update.hung',
    })
    expect(c.offered).toBe(1)
  })

  test('is told what it is after going on or starting, not what was asked for', async () => {
    devices.length = 1
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    await rollouts.change(id, 'pause', 'wait', by)
    await rollouts.heard(a, { ...idle, outcome: { rollout: id, fault: null } })
    expect((await rollouts.change(id, 'resume', 'on', by)).state).toBe('done')
  })

  test('cannot let go on what no device takes any more', async () => {
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.change(id, 'pause', 'wait', by)
    seconds += 86_400
    const before = codes()
    await expect(rollouts.change(id, 'resume', 'on', by)).rejects.toMatchObject({
      code: 'rollout.state',
      nextStep: expect.stringContaining('rollout sign') as string,
    })
    expect([codes(), (await rollouts.find(id)).state]).toEqual([before, 'paused'])
  })

  test('cannot do what the state does not allow, nor to one that is not there', async () => {
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await expect(rollouts.change(id, 'resume', 'x', by)).rejects.toMatchObject({
      code: 'rollout.state',
    })
    await rollouts.change(id, 'abort', 'x', by)
    for (const act of ['pause', 'resume', 'abort'] as const)
      await expect(rollouts.change(id, act, 'x', by)).rejects.toMatchObject({
        code: 'rollout.state',
      })
    const none = `o_${'0'.repeat(26)}`
    await expect(rollouts.change(none, 'abort', 'x', by)).rejects.toMatchObject({
      code: 'rollout.unknown',
    })
    await expect(rollouts.find(none)).rejects.toMatchObject({ code: 'rollout.unknown' })
  })

  test.for([
    ['another agent than the manifest names', asked(), Buffer.from('another'), 'rollout.agent'],
    ['no manifest', asked({ manifest: 'x' }), BUNDLE, 'rollout.manifest'],
    [
      'a manifest that is over',
      asked({ manifest: manifestOf({ notAfter: START_S }) }),
      BUNDLE,
      'rollout.manifest',
    ],
    ['shares that do not rise', asked({ stages: [50, 50] }), BUNDLE, 'rollout.stages'],
  ] as const)('cannot start %s', async ([, given, bundle, code]) => {
    const a = await connect('a')
    await expect(rollouts.start(given, bundle, by)).rejects.toMatchObject({ code })
    expect([a.told, events, existsSync(join(folder, 'updates'))]).toEqual([[], [], false])
  })

  test('cannot start a second one to the same devices', async () => {
    await rollouts.start(asked(), BUNDLE, by)
    await expect(rollouts.start(asked({ zone: 'default' }), BUNDLE, by)).rejects.toMatchObject({
      code: 'rollout.standing',
    })
    expect(codes()).toEqual(['rollout.change start'])
  })
})

describe('what cannot be recorded', () => {
  test('is not started, and not heard', async () => {
    const a = await connect('a')
    fails = true
    await expect(rollouts.start(asked(), BUNDLE, by)).rejects.toThrow('no room')
    expect([a.told, await rollouts.list(10)]).toEqual([[], []])
    fails = false
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    fails = true
    for (const said of [{ trial: id }, { taking: id, starting: id }]) {
      const one = new Connected('b')
      await expect(rollouts.heard(one, { ...idle, ...said })).rejects.toThrow('no room')
      expect(one.told).toEqual([])
    }
  })
})

test('what is started or let go on is answered as done, though the first offer cannot be recorded', async () => {
  const a = await connect('a')
  failsFrom = 1
  const { id, state } = await rollouts.start(asked(), BUNDLE, by)
  expect([state, a.offered]).toEqual(['running', 0])
  failsFrom = Infinity
  await rollouts.change(id, 'pause', 'wait', by)
  failsFrom = events.length + 1
  expect((await rollouts.change(id, 'resume', 'on', by)).state).toBe('running')
  expect([reports, a.offered]).toEqual([2, 0])
  reports = 0
  failsFrom = Infinity
  await rollouts.look()
  expect(a.offered).toBe(1)
})

test('a device that speaks of a rollout that is not there is heard, and nothing is recorded', async () => {
  const one = await connect('a', { outcome: { rollout: 'o_gone', fault: 'update.hung' } })
  expect([one.told, events]).toEqual([[{ type: 'update', act: 'heard', rollout: 'o_gone' }], []])
})

test('of the agents, only those of open rollouts are kept', async () => {
  const { id } = await rollouts.start(asked(), BUNDLE, by)
  await rollouts.change(id, 'abort', 'x', by)
  const next = Buffer.from('the next agent')
  const sha256 = hash('sha256', next, 'hex')
  const manifest = manifestOf({ sha256, size: next.length })
  await rollouts.start(asked({ manifest }), next, by)
  expect(readdirSync(join(folder, 'updates'))).toEqual([sha256])
})
