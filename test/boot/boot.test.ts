/** Whatever ends it at whichever step, a device has an agent that starts, and it is one that its owner signed. */
import { spawn } from 'node:child_process'
import { generateKeyPairSync, hash } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  beginTrial,
  chooseAgent,
  confirmTrial,
  failTrial,
  heardOutcome,
  Shelf,
  type BootState,
} from '#boot'
import { signUpdate, updateKeyOf, type Update } from '#update'
import { until } from '../support/patience.ts'
import { freshState, MOST_STARTS, nextStart, readState } from '../../agent-tunnel/boot/state.ts'

const { privateKey } = generateKeyPairSync('ed25519')
const key = updateKeyOf(privateKey)!

let data: string
beforeEach(() => {
  data = mkdtempSync(join(tmpdir(), 'sallyport-boot-'))
  new Shelf(data).pin([key])
})
afterEach(() => rmSync(data, { recursive: true }))

function made(version: string): { update: Update; manifest: string; bundle: Buffer } {
  const bundle = Buffer.from(`agent ${version}`)
  const facts = { from: '0.0.0', node: '26.0.0', health: 60, notAfter: 2_000_000_000 }
  const update = { version, sha256: hash('sha256', bundle, 'hex'), size: bundle.length, ...facts }
  return { update, manifest: signUpdate(update, privateKey), bundle }
}

const trialOf = ({ version, sha256, health }: Update, rollout = 'r_1') => ({
  version,
  sha256,
  health,
  rollout,
})

/** Takes an update as the agent does, to the point where it is confirmed. */
function take(shelf: Shelf, version: string): void {
  const { update, manifest, bundle } = made(version)
  shelf.keep(update, manifest, bundle)
  shelf.remember(beginTrial(shelf.state('0.1.0'), trialOf(update)))
  chooseAgent(shelf, '0.1.0')
  shelf.remember(confirmTrial(shelf.state('0.1.0')))
  shelf.markTrial(false)
}

/** Starts as the installed agent does, and gives the version that runs. */
function started(installed = '0.1.0'): string {
  const { path, kept } = chooseAgent(new Shelf(data), installed)
  if (kept === null) return installed
  expect(readFileSync(path!, 'utf8')).toBe(`agent ${kept.version}`)
  return kept.version
}

describe('ended at any step', () => {
  class Killed extends Error {}

  /** Runs `work` to its nth step and no further, for each n. */
  function brokenOff(work: (shelf: Shelf) => void, then: (steps: number) => void): number {
    for (let nth = 0; ; nth++) {
      // Who is dead does nothing more.
      let left = nth
      let dead = false
      const shelf = new Shelf(data, (name) => {
        dead ||= left-- === 0
        if (dead) throw new Killed(name)
      })
      try {
        work(shelf)
        return nth
      } catch (error) {
        if (!(error instanceof Killed)) throw error
        then(nth)
        rmSync(data, { recursive: true })
        data = mkdtempSync(join(tmpdir(), 'sallyport-boot-'))
        new Shelf(data).pin([key])
        take(new Shelf(data), '0.2.0')
      }
    }
  }

  test('of being taken, what ran before or the update starts, whole', () => {
    take(new Shelf(data), '0.2.0')
    const runs: string[] = []
    const steps = brokenOff(
      (shelf) => take(shelf, '0.3.0'),
      () => runs.push(started()),
    )
    expect(steps).toBeGreaterThan(6)
    expect([...new Set(runs)]).toEqual(['0.2.0', '0.3.0'])
    expect(runs).toEqual(runs.toSorted())
  })

  test('and that each time, the installed one or the one before starts in the end', () => {
    const { update, manifest, bundle } = made('0.2.0')
    const shelf = new Shelf(data)
    shelf.keep(update, manifest, bundle)
    shelf.remember(beginTrial(shelf.state('0.1.0'), trialOf(update)))
    const runs = Array.from({ length: MOST_STARTS + 2 }, () => started())
    expect(runs).toEqual(['0.2.0', '0.2.0', '0.2.0', '0.1.0', '0.1.0'])
    expect(shelf.state('0.1.0').outcome).toEqual({
      rollout: 'r_1',
      version: '0.2.0',
      fault: 'update.crashed',
    })
  })
})

describe('what is not what was signed does not start', () => {
  const rows: [string, (shelf: Shelf, sha256: string) => void][] = [
    ['an octet changed', (shelf, sha256) => writeFileSync(shelf.pathOf(sha256), 'agent 0.3.1')],
    ['cut short', (shelf, sha256) => writeFileSync(shelf.pathOf(sha256), 'agent')],
    ['gone', (shelf, sha256) => rmSync(shelf.pathOf(sha256))],
    ['without its manifest', (shelf, sha256) => rmSync(join(shelf.folder, `${sha256}.update`))],
    [
      'with the manifest of another',
      (shelf, sha256) =>
        writeFileSync(join(shelf.folder, `${sha256}.update`), made('0.4.0').manifest),
    ],
    [
      'signed by a key that is not pinned',
      (shelf, sha256) => {
        const { update } = made('0.3.0')
        const foreign = signUpdate(update, generateKeyPairSync('ed25519').privateKey)
        writeFileSync(join(shelf.folder, `${sha256}.update`), foreign)
      },
    ],
  ]
  test.for(rows)('%s: the one before does', ([, damage]) => {
    const shelf = new Shelf(data)
    take(shelf, '0.2.0')
    take(shelf, '0.3.0')
    expect(started()).toBe('0.3.0')
    damage(shelf, made('0.3.0').update.sha256)
    expect(chooseAgent(shelf, '0.1.0')).toMatchObject({
      kept: { version: '0.2.0' },
      damaged: { version: '0.3.0' },
    })
    // It is said once, and what is forgotten stays so.
    expect(chooseAgent(shelf, '0.1.0').damaged).toBeNull()
    expect(started()).toBe('0.2.0')
    expect(shelf.state('0.1.0').floor).toBe('0.3.0')
  })

  test('an update on trial: it is told as damaged', () => {
    const shelf = new Shelf(data)
    const { update, manifest, bundle } = made('0.2.0')
    shelf.keep(update, manifest, bundle)
    shelf.remember(beginTrial(shelf.state('0.1.0'), trialOf(update)))
    writeFileSync(shelf.pathOf(update.sha256), 'agent 0.2.1')
    expect(chooseAgent(shelf, '0.1.0')).toMatchObject({ kept: null, damaged: null })
    expect(shelf.state('0.1.0').outcome?.fault).toBe('update.damaged')
  })

  test('no key is pinned any more, or what is pinned is no key', () => {
    const shelf = new Shelf(data)
    take(shelf, '0.2.0')
    shelf.pin([])
    expect([shelf.keys(), started()]).toEqual([[], '0.1.0'])
    for (const text of ['', '\n', 'ed25519:\n', `${key.word}\nmore\n`, `${key.word}\n`.repeat(5)]) {
      writeFileSync(join(shelf.folder, 'keys'), text)
      expect(shelf.keys(), text).toEqual([])
    }
  })
})

test('keys that cannot be read for now: the installed agent starts, says so, and forgets nothing', () => {
  const shelf = new Shelf(data)
  take(shelf, '0.2.0')
  rmSync(join(shelf.folder, 'keys'))
  mkdirSync(join(shelf.folder, 'keys'))
  const { kept, fault } = chooseAgent(shelf, '0.1.0')
  expect([kept, fault]).toEqual([null, expect.stringContaining('EISDIR') as string])
  rmSync(join(shelf.folder, 'keys'), { recursive: true })
  shelf.pin([key])
  expect(started()).toBe('0.2.0')
})

test('a state that cannot be read is none', () => {
  const shelf = new Shelf(data)
  take(shelf, '0.2.0')
  const whole = readFileSync(join(shelf.folder, 'state.json'), 'utf8')
  expect(readState(whole)).toEqual(shelf.state('0.1.0'))
  for (const text of [
    '',
    '{}',
    'null',
    whole.slice(0, -5),
    whole.replace('"v":1', '"v":2'),
    whole.replace('0.2.0', '../x'),
  ]) {
    writeFileSync(join(shelf.folder, 'state.json'), text)
    expect(started(), text).toBe('0.1.0')
  }
})

test('who installs a newer agent has that one, and the updates before it are forgotten', () => {
  const shelf = new Shelf(data)
  take(shelf, '0.2.0')
  expect(started('0.2.0')).toBe('0.2.0')
  expect(chooseAgent(shelf, '0.2.0').kept).toBeNull()
  expect(shelf.state('0.2.0')).toMatchObject({ current: null, floor: '0.2.0' })
})

test('a disk that takes nothing: what was healthy starts, and nothing is tried', () => {
  const shelf = new Shelf(data)
  take(shelf, '0.2.0')
  const { update, manifest, bundle } = made('0.3.0')
  shelf.keep(update, manifest, bundle)
  shelf.remember(beginTrial(shelf.state('0.1.0'), trialOf(update)))
  const full = new Shelf(data, (name) => {
    if (name === 'state') throw new Error('ENOSPC')
  })
  expect(chooseAgent(full, '0.1.0')).toMatchObject({
    kept: { version: '0.2.0' },
    fault: 'ENOSPC',
    trialS: undefined,
  })
  expect(started()).toBe('0.3.0')
})

test('the files of agents that are not named any more go', () => {
  const shelf = new Shelf(data)
  for (const version of ['0.2.0', '0.3.0', '0.4.0']) take(shelf, version)
  const { update } = made('0.5.0')
  writeFileSync(`${shelf.pathOf(update.sha256)}.new`, 'half')
  shelf.sweep(shelf.state('0.1.0'))
  const kept = ['0.3.0', '0.4.0'].flatMap((version) => {
    const { sha256 } = made(version).update
    return [`${sha256}.cjs`, `${sha256}.update`]
  })
  expect(readdirSync(shelf.folder).sort()).toEqual([...kept, 'keys', 'state.json'].sort())
})

test('whatever happens in whatever order, what starts was healthy or is on trial, and the floor never sinks', () => {
  const kept = [2, 3, 4].map((minor) => made(`0.${minor}.0`).update)
  const act = fc.oneof(
    fc
      .integer({ min: 0, max: 2 })
      .map(
        (nth) => (state: BootState) =>
          state.trial === null ? beginTrial(state, trialOf(kept[nth]!)) : state,
      ),
    fc.constant((state: BootState) => confirmTrial(state)),
    fc.constant((state: BootState) => failTrial(state, 'update.unhealthy')),
    fc.constant((state: BootState) => heardOutcome(state, 'r_1')),
    fc
      .boolean()
      .map((late) => (state: BootState) => nextStart(state, { installed: '0.1.0', late }).state),
  )
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), (acts) => {
      const healthy = new Set<string | undefined>([undefined])
      let state = freshState('0.1.0')
      for (const one of acts) {
        const before = state
        state = one(state)
        if (state.current !== before.current) healthy.add(state.current?.sha256)
        expect(state.floor >= before.floor).toBe(true)
        expect(readState(JSON.stringify(state))).toEqual(state)
        const { run } = nextStart(state, { installed: '0.1.0', late: false })
        expect(run?.sha256 === state.trial?.sha256 || healthy.has(run?.sha256)).toBe(true)
        if (state.trial !== null) expect(state.trial.starts).toBeLessThanOrEqual(MOST_STARTS)
      }
    }),
  )
})

describe('who hangs on trial is ended', () => {
  const hung = `const { watchTrial, Shelf } = await import(process.argv[1]); const shelf = new Shelf(process.argv[2]);
    shelf.markTrial(true); watchTrial(shelf, 0, Number(process.argv[3])); process.stdout.write('up'); for (;;) {}`
  const door = join(import.meta.dirname, '../../agent-tunnel/boot/index.ts')

  test('from outside, and the next start goes back', async () => {
    const shelf = new Shelf(data)
    const { update, manifest, bundle } = made('0.2.0')
    shelf.keep(update, manifest, bundle)
    shelf.remember(beginTrial(shelf.state('0.1.0'), trialOf(update)))
    const child = spawn(process.execPath, ['--input-type=module', '-e', hung, door, data, '0'])
    expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
    expect(shelf.late).toBe(true)
    expect(started()).toBe('0.1.0')
    expect(shelf.state('0.1.0').outcome?.fault).toBe('update.hung')
    expect([shelf.late, existsSync(join(shelf.folder, 'on-trial'))]).toEqual([false, false])
  })

  test('though the disk does not take that it was', async () => {
    const shelf = new Shelf(data)
    const source = hung
      .replace('const {', "const { mkdirSync } = await import('node:fs'); const {")
      .replace(
        'watchTrial(',
        "mkdirSync(shelf.folder + '/late/in', { recursive: true }); watchTrial(",
      )
    const child = spawn(process.execPath, ['--input-type=module', '-e', source, door, data, '0'])
    expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
    expect(readdirSync(join(shelf.folder, 'late'))).toEqual(['in'])
  })

  test('but not one that is not on trial any more', async () => {
    const shelf = new Shelf(data)
    shelf.markTrial(true)
    shelf.markTrial(false)
    const source = hung
      .replace('shelf.markTrial(true);', '')
      .replace('for (;;) {}', 'setTimeout(() => {}, 2 ** 30)')
    const child = spawn(process.execPath, ['--input-type=module', '-e', source, door, data, '0'])
    const children = () =>
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim()
    await once(child.stdout, 'data')
    // The watch has looked and gone, without having written that anybody was late.
    await until('the watch has looked', () => children() === '')
    expect([child.exitCode, child.signalCode, shelf.late]).toEqual([null, null, false])
    child.kill('SIGKILL')
    await once(child, 'exit')
  })
})
