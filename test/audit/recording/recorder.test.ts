/** Recordings on a real disk: durable part by part, logged before the next, and what a crash or a full disk leaves of them. */
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { AuditError } from '#audit'
import { Recorder, type RecorderOptions, type RecordingDisk } from '../../../audit/recorder.ts'
import {
  closeRecording,
  findParts,
  listRecordings,
  openRecordings,
  readRecording,
  salvage,
} from '../../../audit/recordings.ts'
import { identityOf } from '../../../audit/recording/keys.ts'
import { compare, fileOf, rootOf, type Part } from '../../../audit/recording/parts.ts'
import { readTrack } from '../../../audit/recording/read.ts'
import { until } from '../../support/node.ts'
import { temporary } from '../fixture.ts'
import { factsOf, SESSION } from './facts.ts'

const anna = identityOf(new Uint8Array(32).fill(1))
const bert = identityOf(new Uint8Array(32).fill(2))
const KiB = 1024

interface Made {
  readonly recorder: Recorder
  readonly directory: string
  readonly events: (Part & { readonly idx: number })[]
  readonly failures: AuditError[]
}

async function make(change: Partial<RecorderOptions> = {}): Promise<Made> {
  const directory = change.directory ?? temporary()
  const events: (Part & { readonly idx: number })[] = []
  const failures: AuditError[] = []
  const recorder = await Recorder.open({
    directory,
    facts: factsOf(),
    recipients: [anna.recipient, bert.recipient],
    budget: 1e9,
    clock: { now: () => 1_750_000_000_000 },
    random: (bytes) => randomBytes(bytes),
    logged: async (part) => {
      events.push({ ...part, idx: events.length })
      return events.length - 1
    },
    failed: (error) => failures.push(error),
    ...change,
  })
  return { recorder, directory, events, failures }
}

function read(directory: string, parts: readonly Part[], track = 1): string {
  const own = parts.filter((part) => part.track === track)
  const sealed = own.map((part) => ({
    ...part,
    sealed: readFileSync(join(directory, SESSION, fileOf(part))),
  }))
  return Buffer.from(readTrack(SESSION, sealed, [bert])).toString()
}

describe('a recording', () => {
  test('is cut between records, each part logged in order, and put together again', async () => {
    const { recorder, directory, events } = await make({ limits: { partBytes: 1_000 } })
    const track = recorder.track(Buffer.from('header\n'))
    const lines = Array.from({ length: 50 }, (_, at) => `${at} ${'x'.repeat(at * 5)}\n`)
    for (const line of lines) track.write(Buffer.from(line))
    const end = await recorder.end()
    expect(events.length).toBeGreaterThan(5)
    expect(events.map(({ part }) => part)).toEqual(events.map((_, at) => at + 1))
    expect(read(directory, events)).toBe(`header\n${lines.join('')}`)
    expect(end).toMatchObject({ parts: end.parts, root: rootOf(events) })
    const logged = { parts: events, end: { idx: 99, parts: events.length, root: end.root } }
    expect(compare(logged, await findParts(directory, SESSION))).toEqual([])
    expect(await openRecordings(directory)).toEqual([SESSION])
    await closeRecording(directory, SESSION, end.parts, { idx: 99, reason: 'client_done' })
    expect(await openRecordings(directory)).toEqual([])
    const [stored] = await listRecordings(directory)
    expect(stored?.end).toMatchObject({
      parts: events.length,
      root: end.root,
      reason: 'client_done',
    })
    expect(stored?.parts.map(({ idx }) => idx)).toEqual(events.map(({ idx }) => idx))
  })

  test('takes nothing of a request that was on its way when it ended', async () => {
    const { recorder, directory, events } = await make({ limits: { partMs: 1 } })
    recorder.track(Buffer.from('header\n'))
    const ending = recorder.end()
    const late = recorder.track(Buffer.from('late\n'))
    late.write(Buffer.from('later\n'))
    const { parts, bytes } = await ending
    recorder.track(Buffer.from('latest\n'))
    await late.end()
    await recorder.idle()
    expect([events.length, parts.length, recorder.bytes]).toEqual([1, 1, bytes])
    const files = readdirSync(join(directory, SESSION)).filter((name) => name.includes('.age'))
    expect(files).toHaveLength(1)
  })

  test('has nothing in the clear on disk, and its files are nobody else’s', async () => {
    const { recorder, directory } = await make()
    recorder.track(Buffer.from('header\n')).write(Buffer.from('the password is hunter2\n'))
    await recorder.end()
    for (const name of readdirSync(join(directory, SESSION))) {
      const path = join(directory, SESSION, name)
      expect(readFileSync(path).includes('hunter2')).toBe(false)
      expect(statSync(path).mode & 0o077).toBe(0)
    }
  })

  test('begins no part before the hash of the one before is in the log', async () => {
    const gate = Promise.withResolvers<void>()
    const acts: string[] = []
    const { recorder, directory } = await make({
      limits: { partBytes: 100 },
      logged: async ({ part }) => {
        acts.push(`log ${part}`)
        if (part === 1) await gate.promise
        return part
      },
    })
    const track = recorder.track(Buffer.from('a'.repeat(80)))
    for (const letter of 'bc') track.write(Buffer.from(letter.repeat(80)))
    await until('the first part is at the log', () => acts.length === 1)
    expect(readdirSync(join(directory, SESSION)).toSorted()).toEqual([
      '001-000001.age',
      'manifest.ndjson',
    ])
    gate.resolve()
    await recorder.end()
    expect(acts).toEqual(['log 1', 'log 2', 'log 3'])
  })

  test('ends a part when its time is over, though nothing more comes', async () => {
    const { recorder, directory, events } = await make({ limits: { partMs: 20 } })
    recorder.track(Buffer.from('only this\n'))
    await until('the part is logged', () => events.length === 1)
    expect(read(directory, events)).toBe('only this\n')
    await recorder.end()
    expect(events).toHaveLength(1)
  })

  test('keeps connections apart, each a track', async () => {
    const { recorder, directory, events } = await make()
    const [one, two] = [recorder.track(Buffer.from('one')), recorder.track(Buffer.from('two'))]
    two.write(Buffer.from('!'))
    await two.end()
    one.write(Buffer.from('?'))
    await recorder.end()
    expect([read(directory, events, 1), read(directory, events, 2)]).toEqual(['one?', 'two!'])
  })

  test('takes nothing after its end', async () => {
    const { recorder, directory, events } = await make()
    const track = recorder.track(Buffer.from('a'))
    await recorder.end()
    track.write(Buffer.from('b'))
    await track.end()
    expect(read(directory, events)).toBe('a')
  })

  test('asks to wait when the disk is slow, and drains', async () => {
    const gate = Promise.withResolvers<void>()
    const { recorder } = await make({
      limits: { highBytes: 100 * KiB },
      disk: slow(gate.promise),
    })
    const track = recorder.track(Buffer.from('a'))
    let drained = 0
    track.onDrain = () => drained++
    track.write(Buffer.alloc(64 * KiB))
    expect(track.full).toBe(false)
    track.write(Buffer.alloc(128 * KiB))
    expect(track.full).toBe(true)
    gate.resolve()
    await until('it drains', () => drained === 1)
    expect(track.full).toBe(false)
    await recorder.end()
  })
})

/** A disk that works, but not before `gate`. */
function slow(gate: Promise<void>): RecordingDisk {
  return {
    open: async () => ({ write: () => gate, sync: async () => {}, close: async () => {} }),
    rename: async () => {},
    syncDirectory: async () => {},
  }
}

describe('what opens a recording', () => {
  const prepared = async () => {
    const made = await make({ limits: { partBytes: 500 } })
    const track = made.recorder.track(Buffer.from('header\n'))
    for (let at = 0; at < 20; at++) track.write(Buffer.from(`${at} ${'y'.repeat(100)}\n`))
    await made.recorder.end()
    return made
  }
  const code = (act: () => unknown): string => {
    try {
      act()
    } catch (error) {
      return error instanceof AuditError ? `${error.code} ${error.message}` : String(error)
    }
    return 'nothing'
  }

  test('is one of its keys, and no other', async () => {
    const { directory, events } = await prepared()
    const sealed = events.map((part) => ({
      ...part,
      sealed: readFileSync(join(directory, SESSION, fileOf(part))),
    }))
    const mallory = identityOf(new Uint8Array(32).fill(9))
    expect(code(() => readTrack(SESSION, sealed, [mallory]))).toMatch(
      /^recording\.identity 001-000001/,
    )
    expect(code(() => readTrack(SESSION, sealed, []))).toMatch(/^recording\.identity/)
    expect(readTrack(SESSION, sealed, [mallory, anna]).length).toBeGreaterThan(2_000)
  })

  test('finds a part that was put in the place of another, even where the hashes were changed along', async () => {
    const { directory, events } = await prepared()
    const sealed = events.map((part) => ({
      ...part,
      sealed: readFileSync(join(directory, SESSION, fileOf(part))),
    }))
    const [first, second, third] = sealed
    if (first === undefined || second === undefined || third === undefined)
      throw new Error('too few')
    const as = (one: typeof first, part: number) => ({ ...one, part })
    const rows = [
      ['two in the other order', [as(second, 1), as(first, 2), third]],
      ['one twice', [first, as(first, 2), third]],
      ['one left out', [first, as(third, 2)]],
      ['the beginning left out', [as(second, 1), as(third, 2)]],
    ] as const
    for (const [name, parts] of rows)
      expect(
        code(() => readTrack(SESSION, parts, [anna])),
        name,
      ).toMatch(/belongs elsewhere/)
    expect(code(() => readTrack('s_01j00000000000000000000001', sealed, [anna]))).toMatch(
      /belongs elsewhere/,
    )
    expect(code(() => readTrack(SESSION, [first, third], [anna]))).toMatch(/part 2 is missing/)
  })
})

describe('a disk that fails', () => {
  const real = (fail: (act: string) => void): RecordingDisk => ({
    async open(path) {
      fail('open')
      writeFileSync(path, '', { flag: 'wx', mode: 0o600 })
      return {
        async write(bytes) {
          fail('write')
          appendFileSync(path, bytes)
        },
        async sync() {
          fail('sync')
        },
        async close() {
          fail('close')
        },
      }
    },
    async rename(from, to) {
      fail('rename')
      writeFileSync(to, readFileSync(from), { mode: 0o600 })
      rmSync(from)
    },
    async syncDirectory() {
      fail('directory')
    },
  })

  const acts = ['open', 'write', 'sync', 'close', 'rename', 'directory']
  test.for(acts.flatMap((act) => [1, 2, 3].map((at) => [act, at] as const)))(
    'at %s %i: told once, the recording ends, and what was logged opens',
    async ([act, at]) => {
      let count = 0
      const disk = real((done) => {
        if (done === act && ++count >= at) throw Object.assign(new Error('EIO'), { code: 'EIO' })
      })
      const { recorder, directory, events, failures } = await make({
        disk,
        limits: { partBytes: 300 },
      })
      const track = recorder.track(Buffer.from('header\n'))
      for (let line = 0; line < 30; line++) track.write(Buffer.from(`${line} ${'z'.repeat(90)}\n`))
      await expect(recorder.end()).rejects.toMatchObject({ code: 'recording.write' })
      await recorder.idle()
      expect(failures).toHaveLength(1)
      const before = [...events]
      const parts = await salvage(directory, SESSION, async (part) => {
        events.push({ ...part, idx: events.length })
        return events.length - 1
      })
      expect(parts.slice(0, before.length).map(({ sha256 }) => sha256)).toEqual(
        before.map(({ sha256 }) => sha256),
      )
      const logged = { parts: events, end: { idx: 99, parts: parts.length, root: rootOf(parts) } }
      expect(compare(logged, await findParts(directory, SESSION))).toEqual([])
      if (parts.length > 0)
        expect(`header\n`.startsWith(read(directory, parts).slice(0, 7))).toBe(true)
    },
  )

  test('a log that does not take the hash ends the recording', async () => {
    const { recorder, failures } = await make({
      logged: () => Promise.reject(new AuditError('log.write', 'no room')),
    })
    recorder.track(Buffer.from('a'))
    await expect(recorder.end()).rejects.toMatchObject({ code: 'log.write' })
    expect(failures).toHaveLength(1)
  })

  test('a budget that is used up ends it before more than that is on disk', async () => {
    const budget = 1024 * KiB
    const { recorder, directory, failures } = await make({
      budget,
      limits: { partBytes: 100 * KiB },
    })
    const track = recorder.track(Buffer.from('header\n'))
    for (let at = 0; at < 200; at++) track.write(randomBytes(10 * KiB))
    await recorder.idle()
    expect(failures.map(({ code }) => code)).toEqual(['recording.budget'])
    const path = join(directory, SESSION)
    const used = readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0)
    expect(used).toBeLessThan(budget)
    expect(used).toBeGreaterThan(budget / 2)
  })

  test('a disk that takes nothing while more and more comes ends it: memory is bounded', async () => {
    const { recorder, failures } = await make({
      limits: { waitingBytes: 1024 * KiB, highBytes: 100 * KiB },
      disk: slow(new Promise(() => {})),
    })
    const track = recorder.track(Buffer.from('a'))
    for (let at = 0; at < 30; at++) track.write(Buffer.alloc(64 * KiB))
    expect(failures.map(({ code }) => code)).toEqual(['recording.slow'])
    expect(track.full).toBe(false)
  })
})

const small = mkdtempSync(join(tmpdir(), 'sallyport-recording-'))
const mounted =
  process.getuid?.() === 0 &&
  spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small]).status === 0
afterAll(() => {
  if (mounted) spawnSync('umount', [small])
  rmSync(small, { recursive: true, force: true })
})

test.skipIf(!mounted)(
  'a full disk (needs a tmpfs to fill) ends it, and what was durable opens',
  async () => {
    const { recorder, directory, events, failures } = await make({
      directory: join(small, 'recordings'),
      limits: { partBytes: 100 * KiB },
    })
    const track = recorder.track(Buffer.from('header\n'))
    for (let at = 0; at < 300 && failures.length === 0; at++) {
      track.write(Buffer.from(`${at} ${'q'.repeat(10 * KiB)}\n`))
      if (at % 10 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await until('it has failed', () => failures.length === 1)
    await recorder.idle()
    expect(failures[0]?.message).toContain('ENOSPC')
    expect(events.length).toBeGreaterThan(2)
    expect(read(directory, events)).toMatch(/^header\n0 q/)
  },
)

test('kill -9 while it records, three times: what was logged is there, and the part that was cut is kept', async () => {
  let torn = 0
  for (let round = 0; round < 3; round++) {
    const directory = temporary()
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'dying.ts'), directory, anna.recipient.text, bert.recipient.text],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    onTestFinished(() => void child.kill('SIGKILL'))
    let out = ''
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
    await until('it has logged some parts', () => out.split('\n').length > 2 + round)
    await new Promise((resolve) => setTimeout(resolve, round * 3))
    child.kill('SIGKILL')
    await once(child, 'close')
    const events = out
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Part & { idx: number })
    const again: (Part & { idx: number })[] = []
    const parts = await salvage(directory, SESSION, async (part) => {
      again.push({ ...part, idx: 1_000 + again.length })
      return 1_000 + again.length - 1
    })
    torn += parts.filter((part) => part.torn).length
    const logged = {
      parts: [...events, ...again],
      end: { idx: 9_999, parts: parts.length, root: rootOf(parts) },
    }
    expect(compare(logged, await findParts(directory, SESSION))).toEqual([])
    const lines = read(directory, parts).split('\n')
    expect(lines[0]).toBe('begin')
    // Whole lines in order, up to where a chunk ends.
    for (const [at, line] of lines.slice(1, -1).entries())
      expect(line.startsWith(`${at} `)).toBe(true)
    expect(lines.length).toBeGreaterThan(events.length * 20)
    // A second look finds nothing more to tell.
    await closeRecording(directory, SESSION, parts, { idx: 9_999, reason: 'node_crash' })
    expect(
      await salvage(directory, SESSION, () => Promise.reject(new Error('told twice'))),
    ).toEqual(parts)
    expect((await readRecording(directory, SESSION))?.end?.reason).toBe('node_crash')
    expect(existsSync(join(directory, SESSION, 'manifest.ndjson'))).toBe(true)
  }
  expect(torn).toBeGreaterThan(0)
})
