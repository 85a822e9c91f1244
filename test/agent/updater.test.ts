/** Updates on a device that runs, by a clock that the test moves: what is taken when, and what ends it. */
import { generateKeyPairSync, hash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { beginTrial, Shelf } from '#boot'
import { signUpdate, updateKeyOf, type Update } from '#update'
import { GatewayBusy } from '../../agent-tunnel/agent/update/fetch.ts'
import { ANSWER_MS } from '../../agent-tunnel/agent/update/line.ts'
import {
  LONGEST_BUSY_MS,
  LONGEST_WAIT_MS,
  Updater,
} from '../../agent-tunnel/agent/update/updater.ts'
import type { Started } from '../../agent-tunnel/agent/update/updater.ts'
import type { UpdateReport } from '../../agent-tunnel/agent/update/report.ts'
import { VERSION } from '../../agent-tunnel/agent/version.ts'
import { HandClock } from '../support/clock.ts'
import { Directory } from './device.ts'
import { holds } from './gateway.ts'

const { privateKey } = generateKeyPairSync('ed25519')
const key = updateKeyOf(privateKey)!
const NOW_S = 1_800_000_000
const at = { host: 'gw.example', port: 8443 }
const BUNDLE = Buffer.from('an agent')

function manifestOf(change: Partial<Update> = {}): string {
  const facts = { from: '0.1.0', node: '26.10.0', health: 300, notAfter: NOW_S + 3600 }
  const sha256 = hash('sha256', BUNDLE, 'hex')
  return signUpdate(
    { version: '0.2.0', sha256, size: BUNDLE.length, ...facts, ...change },
    privateKey,
  )
}

interface House {
  readonly clock: HandClock
  readonly updater: Updater
  readonly shelf: Shelf
  readonly reports: UpdateReport[]
  readonly fetched: string[]
  restarts: number
  serving: number
  /** What a fetch gives. */
  answer: (signal: AbortSignal) => Promise<Uint8Array>
}

let directory: Directory
beforeEach(() => {
  directory = new Directory()
  return () => directory[Symbol.dispose]()
})

function house(
  started: Started | undefined = { installed: VERSION, running: null, kind: 'file' },
): House {
  const shelf = new Shelf(directory.path)
  shelf.pin([key])
  const clock = new HandClock()
  const made: Omit<House, 'updater'> & { updater?: Updater } = {
    clock,
    shelf,
    reports: [],
    fetched: [],
    restarts: 0,
    serving: 0,
    answer: async () => BUNDLE,
  }
  const updater = new Updater({
    dataDir: directory.path,
    started,
    monotonic: clock,
    random: () => 1,
    log: () => undefined,
    fetch: async ({ sha256 }, _at, signal) => {
      made.fetched.push(sha256)
      return await made.answer(signal)
    },
    now: () => NOW_S * 1000,
    serving: () => made.serving,
    restart: () => made.restarts++,
    node: '26.10.0',
  })
  return Object.assign(made, { updater })
}

/** `answers`: to a gateway that says when it has taken a start down. Gives what ends it. */
const connect = ({ updater, reports }: House, answers = false) =>
  updater.connected((report) => void reports.push(report), answers)
const says = ({ updater }: House, act: 'heard' | 'withdraw', rollout = 'r_1') =>
  updater.told({ type: 'update', act, rollout }, at)
const offer = ({ updater }: House, rollout = 'r_1', manifest = manifestOf()) =>
  updater.told({ type: 'update', act: 'offer', rollout, manifest }, at)
const last = ({ reports }: House) => reports.at(-1)

describe('an update that is taken', () => {
  test('starts at once where nobody is connected, and only after it is on disk', async () => {
    const made = house()
    connect(made)
    expect(last(made)).toMatchObject({ version: VERSION, keys: [key.id], taking: null })
    offer(made)
    expect(last(made)).toMatchObject({ taking: 'r_1', starting: null })
    await holds(() => expect(made.restarts).toBe(1))
    // The last word before it ends; a gateway that knows only of taking is told that once more.
    expect(last(made)).toMatchObject({ taking: 'r_1', starting: 'r_1', trial: null })
    const { trial } = made.shelf.state(VERSION)
    expect(trial).toMatchObject({ version: '0.2.0', rollout: 'r_1', health: 300, starts: 0 })
    expect(made.shelf.isWhole(trial!)).toBe(true)
  })

  test('waits until nobody is connected', async () => {
    const made = house()
    made.serving = 1
    connect(made)
    offer(made)
    await holds(() => expect(made.clock.waiting).toBe(1))
    made.clock.pass(60_000)
    await holds(() => expect(made.clock.waiting).toBe(1))
    expect(made.restarts).toBe(0)
    made.serving = 0
    made.clock.pass(1000)
    await holds(() => expect(made.restarts).toBe(1))
  })

  test('does not wait for ever', async () => {
    const made = house()
    made.serving = 1
    connect(made)
    offer(made)
    await holds(() => expect(made.clock.waiting).toBe(1))
    made.clock.pass(LONGEST_WAIT_MS)
    await holds(() => expect(made.restarts).toBe(1))
  })

  test('is taken back while it waits, and another may come', async () => {
    const made = house()
    made.serving = 1
    connect(made)
    offer(made)
    await holds(() => expect(made.clock.waiting).toBe(1))
    made.updater.told({ type: 'update', act: 'withdraw', rollout: 'r_other' }, at)
    expect(last(made)).toMatchObject({ taking: 'r_1' })
    made.updater.told({ type: 'update', act: 'withdraw', rollout: 'r_1' }, at)
    expect(last(made)).toMatchObject({ taking: null, refused: null })
    made.serving = 0
    offer(made, 'r_2')
    await holds(() => expect(made.restarts).toBe(1))
    expect(made.shelf.state(VERSION).trial?.rollout).toBe('r_2')
    // What was fetched for the first is still here.
    expect(made.fetched).toHaveLength(1)
  })

  test('is not started where the line that went is why nobody is connected', async () => {
    const made = house()
    made.serving = 1
    const ends = connect(made)
    offer(made)
    await holds(() => expect(made.clock.waiting).toBe(1))
    ends()
    made.serving = 0
    for (let looks = 1; looks <= 3; looks++) {
      made.clock.pass(LONGEST_WAIT_MS)
      await holds(() => expect(made.clock.waiting).toBe(1))
    }
    expect([made.restarts, made.shelf.state(VERSION).trial]).toEqual([0, null])
    const next = connect(made)
    // The end of an older tunnel takes nothing from a newer one.
    ends()
    made.clock.pass(1000)
    await holds(() => expect(made.restarts).toBe(1))
    expect(last(made)).toMatchObject({ starting: 'r_1' })
    next()
  })

  test('is started once the gateway has heard that it starts, and is not on trial before', async () => {
    const made = house()
    connect(made, true)
    offer(made)
    await holds(() => expect(last(made)).toMatchObject({ taking: 'r_1', starting: 'r_1' }))
    says(made, 'heard', 'r_other')
    expect([made.restarts, made.shelf.state(VERSION).trial]).toEqual([0, null])
    says(made, 'heard')
    await holds(() => expect(made.restarts).toBe(1))
    expect(made.shelf.state(VERSION).trial).toMatchObject({ rollout: 'r_1' })
    expect(made.clock.waiting).toBe(0)
  })

  test.for([
    'no answer',
    'the end of the tunnel',
    'another tunnel',
    'an answer over who came meanwhile',
  ] as const)(
    'goes on waiting after %s to what it says of its start, and says so',
    async (what) => {
      const made = house()
      const ends = connect(made, true)
      offer(made)
      await holds(() => expect(last(made)).toMatchObject({ starting: 'r_1' }))
      made.serving = 1
      const said = made.reports.length
      if (what === 'no answer') made.clock.pass(ANSWER_MS)
      if (what === 'an answer over who came meanwhile') says(made, 'heard')
      if (what === 'the end of the tunnel') ends()
      if (what.endsWith('tunnel')) connect(made, true)
      // On a new tunnel all is said anyway, and then that it waits again.
      const more = what.endsWith('tunnel') ? 2 : 1
      await holds(() => expect(made.reports).toHaveLength(said + more))
      expect(last(made)).toMatchObject({ taking: 'r_1', starting: null })
      expect(made.clock.waiting).toBe(1)
      // It comes late, when somebody has connected meanwhile.
      says(made, 'heard')
      made.clock.pass(1000)
      await holds(() => expect(made.clock.waiting).toBe(1))
      expect([made.restarts, made.shelf.state(VERSION).trial]).toEqual([0, null])
      made.serving = 0
      made.clock.pass(1000)
      await holds(() => expect(last(made)).toMatchObject({ starting: 'r_1' }))
      says(made, 'heard')
      await holds(() => expect(made.restarts).toBe(1))
    },
  )

  test('is left where that is the answer to its start', async () => {
    const made = house()
    connect(made, true)
    offer(made)
    await holds(() => expect(last(made)).toMatchObject({ starting: 'r_1' }))
    says(made, 'withdraw')
    expect(last(made)).toMatchObject({ taking: null, starting: null })
    says(made, 'heard')
    await holds(() => expect(made.clock.waiting).toBe(0))
    expect([made.restarts, made.shelf.state(VERSION).trial]).toEqual([0, null])
  })

  test('is fetched again after a failure, so often and no more', async () => {
    const made = house()
    made.answer = async () => await Promise.reject(new Error('503'))
    connect(made)
    offer(made)
    for (let tries = 1; tries < 6; tries++) {
      await holds(() => expect([made.fetched.length, made.clock.waiting]).toEqual([tries, 1]))
      made.clock.pass(60_000)
    }
    await holds(() =>
      expect(last(made)).toMatchObject({
        taking: null,
        refused: { rollout: 'r_1', code: 'update.unfetched', detail: '503' },
      }),
    )
    expect([made.fetched.length, made.restarts]).toEqual([6, 0])
  })

  test('is waited for as long as the gateway serves others first, which is no failure', async () => {
    const made = house()
    const waits = async (tries: number) =>
      await holds(() => expect([made.fetched.length, made.clock.waiting]).toEqual([tries, 1]))
    made.answer = async () => await Promise.reject(new GatewayBusy('10'))
    connect(made)
    offer(made)
    for (let tries = 1; tries <= 20; tries++) {
      await waits(tries)
      made.clock.pass(69_999)
      expect(made.fetched).toHaveLength(tries)
      made.clock.pass(1)
    }
    await waits(21)
    made.answer = async () => BUNDLE
    made.clock.pass(70_000)
    await holds(() => expect(made.restarts).toBe(1))
  })

  test('is not waited for without end, nor after it was withdrawn', async () => {
    for (const ends of ['late', 'withdrawn'] as const) {
      const made = house()
      made.answer = async () => await Promise.reject(new GatewayBusy())
      connect(made)
      offer(made)
      await holds(() => expect(made.clock.waiting).toBe(1))
      if (ends === 'late') made.clock.pass(LONGEST_BUSY_MS)
      else made.updater.told({ type: 'update', act: 'withdraw', rollout: 'r_1' }, at)
      const code = ends === 'late' ? { code: 'update.unfetched' } : null
      await holds(() => expect(last(made)).toMatchObject({ taking: null, refused: code }))
      expect([made.fetched.length, made.restarts]).toEqual([ends === 'late' ? 2 : 1, 0])
      made.updater[Symbol.dispose]()
    }
  })

  test.for([
    ['10', 10_000],
    ['0', 1000],
    ['86400', 600_000],
    ['Wed, 21 Oct 2026 07:28:00 GMT', 10_000],
    [undefined, 10_000],
  ] as const)('comes again as it is told to, within bounds: %s', ([header, ms]) => {
    expect(new GatewayBusy(header).waitMs).toBe(ms)
  })

  test('is not started where the disk does not take it', async () => {
    const made = house()
    made.answer = async () => {
      directory[Symbol.dispose]()
      return BUNDLE
    }
    connect(made)
    offer(made)
    await holds(() => expect(last(made)).toMatchObject({ refused: { code: 'update.unkept' } }))
    expect(made.restarts).toBe(0)
  })
})

describe('an offer', () => {
  test('of something else while one is taken changes nothing', async () => {
    const made = house()
    made.answer = (signal) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('over'))))
    connect(made)
    offer(made)
    offer(made, 'r_2')
    expect(last(made)).toMatchObject({ taking: 'r_1' })
    expect(made.fetched).toHaveLength(1)
    made.updater[Symbol.dispose]()
  })

  test.for([
    ['to an agent that nothing could replace', undefined, {}, 'update.unsupported'],
    [
      'that is over',
      { installed: VERSION, running: null, kind: 'file' },
      { notAfter: NOW_S },
      'update.expired',
    ],
    [
      'of no newer agent',
      { installed: VERSION, running: null, kind: 'file' },
      { version: VERSION, from: '0.0.1' },
      'update.rollback',
    ],
  ] as const)('%s is refused and told', ([, started, change, code]) => {
    const made = house(started)
    // A default would stand for undefined.
    const { updater } = started === undefined ? unstarted(made) : made
    updater.connected((report) => void made.reports.push(report))
    updater.told({ act: 'offer', rollout: 'r_1', manifest: manifestOf(change) }, at)
    expect(last(made)).toMatchObject({ refused: { rollout: 'r_1', code } })
    updater.told({ act: 'heard', rollout: 'r_1' }, at)
    updater.connected((report) => void made.reports.push(report))
    expect(last(made)).toMatchObject({ refused: null })
    expect(made.fetched).toEqual([])
  })

  function unstarted({ clock }: House): { updater: Updater } {
    const none = () => Promise.reject(new Error('nothing is fetched'))
    const idle = {
      random: () => 0,
      log: () => undefined,
      serving: () => 0,
      restart: () => undefined,
    }
    const options = {
      dataDir: directory.path,
      started: undefined,
      monotonic: clock,
      fetch: none,
      now: () => NOW_S * 1000,
    }
    return { updater: new Updater({ ...options, ...idle }) }
  }

  test('of no known form is skipped', () => {
    const made = house()
    connect(made)
    for (const message of [
      {},
      { act: 'offer', rollout: 'r_1' },
      { act: 'offer', rollout: '../x', manifest: 'x' },
      { act: 'what', rollout: 'r_1' },
    ])
      made.updater.told({ type: 'update', ...message }, at)
    expect(made.reports).toHaveLength(1)
  })
})

describe('an agent on trial', () => {
  const sha256 = hash('sha256', BUNDLE, 'hex')

  function onTrial(version = VERSION): House {
    const shelf = new Shelf(directory.path)
    shelf.pin([key])
    const trial = { version, sha256, rollout: 'r_1', health: 300 }
    shelf.remember(beginTrial(shelf.state('0.0.1'), trial))
    shelf.markTrial(true)
    return house({ installed: '0.0.1', running: sha256, kind: 'file' })
  }

  test('stays once the gateway has heard of it', () => {
    const made = onTrial()
    connect(made)
    expect(last(made)).toMatchObject({ trial: 'r_1', outcome: null })
    made.updater.told({ act: 'heard', rollout: 'r_0' }, at)
    expect(last(made)).toMatchObject({ trial: 'r_1' })
    made.updater.told({ act: 'heard', rollout: 'r_1' }, at)
    expect(last(made)).toMatchObject({ trial: null, outcome: { rollout: 'r_1', fault: null } })
    expect(made.shelf.state('0.0.1')).toMatchObject({
      current: { sha256 },
      floor: VERSION,
      trial: null,
    })
    made.updater.told({ act: 'heard', rollout: 'r_1' }, at)
    expect(made.shelf.state('0.0.1').outcome).toBeNull()
    made.clock.pass(10_000_000)
    expect(made.restarts).toBe(0)
  })

  test('stays where the gateway does not hear of updates, once there is a tunnel', () => {
    const made = onTrial()
    made.updater.connected(undefined)
    expect(made.shelf.state('0.0.1')).toMatchObject({ current: { sha256 }, trial: null })
  })

  test('goes back when nobody has heard of it in time, to the millisecond', () => {
    const made = onTrial()
    connect(made)
    made.clock.pass(299_999)
    expect(made.restarts).toBe(0)
    made.clock.pass(1)
    expect(made.restarts).toBe(1)
    expect(made.shelf.state('0.0.1')).toMatchObject({
      current: null,
      trial: null,
      floor: '0.0.1',
      outcome: { rollout: 'r_1', version: VERSION, fault: 'update.unhealthy' },
    })
  })

  test('that is another version than was signed goes back at once', () => {
    const made = onTrial('0.9.0')
    made.clock.pass(0)
    expect([made.restarts, made.shelf.state('0.0.1').outcome?.fault]).toEqual([1, 'update.version'])
  })

  test('takes no other update', () => {
    const made = onTrial()
    connect(made)
    offer(made, 'r_2')
    expect(last(made)).toMatchObject({ trial: 'r_1', taking: null })
    expect(made.fetched).toEqual([])
  })

  test('that was started in another way says nothing of a trial, and ends none', () => {
    onTrial().updater[Symbol.dispose]()
    const made = house({ installed: '0.0.1', running: null, kind: 'file' })
    connect(made)
    expect(last(made)).toMatchObject({ trial: null })
    made.updater.told({ act: 'heard', rollout: 'r_1' }, at)
    made.clock.pass(10_000_000)
    expect([made.restarts, made.shelf.state('0.0.1').trial?.rollout]).toEqual([0, 'r_1'])
  })

  describe('that was not started, because the disk took nothing then,', () => {
    function unstarted(): House {
      const shelf = new Shelf(directory.path)
      const trial = { version: '0.2.0', sha256, rollout: 'r_1', health: 300 }
      shelf.keep({ ...trial, size: 0, from: '', node: '', notAfter: 0 }, manifestOf(), BUNDLE)
      shelf.remember(beginTrial(shelf.state(VERSION), trial))
      return house()
    }

    test('is started when it is offered again, and that counts as a start', async () => {
      const made = unstarted()
      connect(made)
      expect(last(made)).toMatchObject({ trial: null, taking: null, outcome: null })
      offer(made)
      expect(last(made)).toMatchObject({ taking: 'r_1' })
      await holds(() => expect(made.restarts).toBe(1))
      expect(made.shelf.state(VERSION).trial).toMatchObject({ rollout: 'r_1', starts: 1 })
      // Who is about to end takes nothing more.
      offer(made)
      offer(made, 'r_2')
      expect([made.fetched, last(made)]).toMatchObject([[], { taking: 'r_1' }])
    })

    test('is refused where the disk still does not take it', async () => {
      const made = unstarted()
      connect(made)
      // The folder can be read, and the state is not replaced.
      mkdirSync(join(made.shelf.folder, 'state.json.new/in'), { recursive: true })
      offer(made)
      await holds(() =>
        expect(last(made)).toMatchObject({
          taking: null,
          refused: { rollout: 'r_1', code: 'update.unkept' },
        }),
      )
      expect(made.restarts).toBe(0)
    })

    test('gives way to another one', async () => {
      const made = unstarted()
      connect(made)
      offer(made, 'r_2')
      await holds(() => expect(made.restarts).toBe(1))
      expect(made.shelf.state(VERSION).trial).toMatchObject({ rollout: 'r_2', starts: 0 })
    })
  })
})
