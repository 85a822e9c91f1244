/** The mirror against honest, careless and lying gateways, killed and cut off wherever that can happen. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { generateKeyPairSync } from 'node:crypto'
import { cpSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  AuditError,
  makeMirrorKeys,
  Mirror,
  readMirrorKeys,
  verifyLog,
  type MirrorSource,
} from '#audit'
import { openCheckpoint } from '../../audit/checkpoint.ts'
import { realDisk, type Disk } from '../../audit/disk.ts'
import { closingEvent } from '../../audit/epoch.ts'
import { formatWitnessKey, parseVkey, parseWitnessKey, witnessSigner } from '../../audit/note.ts'
import { conflictsIn } from '../../audit/mirror/evidence.ts'
import { parseTilePath, Publisher } from '../../audit/publish.ts'
import { Witnesses } from '../../audit/witnesses.ts'
import { second, textsOf } from './epoch-fixture.ts'
import { heads, keys, origin, temporary, vkeys, writer } from './fixture.ts'

const witness = {
  ed25519: generateKeyPairSync('ed25519').privateKey,
  mlDsa44: generateKeyPairSync('ml-dsa-44').privateKey,
}
const name = 'mirror.test/w1'
const witnessKeys = [
  formatWitnessKey(name, witness.ed25519),
  formatWitnessKey(name, witness.mlDsa44),
]
const verifiers = vkeys.map(parseVkey)

/** A log with heads after each of these many events; `tag` makes two of them differ. */
function logOf(counts: readonly number[], tag = '', directory = temporary()): string {
  const own = writer(directory)
  own.open()
  for (const count of counts) {
    own.write(heads(count, tag))
    own.sign(1_800_000_000_000)
  }
  own.close()
  return directory
}

/** What a gateway over this directory would serve. */
function sourceOf(directory: string, more: Partial<MirrorSource> = {}): MirrorSource {
  const publisher = new Publisher(directory, origin)
  const checkpoint = (): Promise<string> =>
    Promise.resolve(readFileSync(join(directory, 'checkpoint'), 'utf8'))
  return {
    checkpoint,
    async tile(path) {
      const name = parseTilePath(path)
      if (name === null) throw new Error(`asked for ${path}`)
      return publisher.tile(name, openCheckpoint(await checkpoint(), verifiers).size)
    },
    submit: () => Promise.resolve(),
    ...more,
  }
}

async function mirrorIn(directory = temporary(), disk: Disk = realDisk): Promise<Mirror> {
  const signers = [witness.ed25519, witness.mlDsa44].map((key) => witnessSigner(name, key))
  const now = (): number => 1_800_000_100_000
  const own = await Mirror.open({ directory, verifiers, signers, disk, now, segmentBytes: 100_000 })
  onTestFinished(() => own[Symbol.dispose]())
  return own
}

async function codeOf(act: () => Promise<unknown>): Promise<string> {
  try {
    await act()
    return 'accepted'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

const proven = (directory: string, quorum?: number) =>
  verifyLog({
    directory,
    verifierKeys: vkeys,
    witnessKeys,
    ...(quorum === undefined ? {} : { quorum }),
  })

describe('an honest log', () => {
  test('is copied event for event, and the copy is proven by the log’s keys and the mirror’s', async () => {
    const log = logOf([3, 300, 900])
    const directory = temporary()
    const own = await mirrorIn(directory)
    const submitted: string[] = []
    const submit = (note: string): Promise<void> => Promise.resolve(void submitted.push(note))
    const followed = await own.follow(sourceOf(log, { submit }))
    expect(followed).toMatchObject({ events: 1_203, submitted: true })
    expect(await proven(directory)).toMatchObject({
      outcome: 'proven',
      events: 1_203,
      witnesses: [{ name, size: 1_203, at: 1_800_000_100 }],
    })
    expect(submitted).toHaveLength(1)
    // Nothing new: nothing is written, signed or handed in again.
    expect(await own.follow(sourceOf(log, { submit }))).toMatchObject({ events: 0 })
    expect(submitted).toHaveLength(1)
    logOf([1, 700], 'more', log)
    expect(await own.follow(sourceOf(log, { submit }))).toMatchObject({ events: 701 })
    expect(await proven(directory)).toMatchObject({ outcome: 'proven', checkpoints: 2 })
  })

  test('whose gateway does not take the cosignature is copied all the same; it is handed in later', async () => {
    const log = logOf([5])
    const directory = temporary()
    const own = await mirrorIn(directory)
    const refusing = sourceOf(log, { submit: () => Promise.reject(new Error('not known')) })
    expect(await own.follow(refusing)).toMatchObject({ submitted: false, why: 'not known' })
    own[Symbol.dispose]()
    let submitted = ''
    const taking = sourceOf(log, { submit: (note) => Promise.resolve(void (submitted = note)) })
    const again = await mirrorIn(directory)
    expect(await again.follow(taking)).toMatchObject({ events: 0, submitted: true })
    expect(submitted).toContain(`\u2014 ${name} `)
  })
})

describe('a log that is not the one held', () => {
  const rows: {
    name: string
    /** What the mirror followed, and what it is shown then. */
    first: readonly [readonly number[], string]
    later: readonly [readonly number[], string]
    code: string
  }[] = [
    {
      name: 'another history of the same length',
      first: [[40], 'a'],
      later: [[40], 'b'],
      code: 'mirror.fork',
    },
    {
      name: 'a longer one with another beginning',
      first: [[40], 'a'],
      later: [[41, 500], 'b'],
      code: 'mirror.fork',
    },
    {
      name: 'a longer one where the held one was a whole subtree',
      first: [[256], 'a'],
      later: [[600], 'b'],
      code: 'mirror.fork',
    },
    { name: 'a shorter one', first: [[300], 'a'], later: [[299], 'a'], code: 'mirror.rollback' },
  ]
  test.for(rows)('$name is refused, and both heads are kept', async ({ first, later, code }) => {
    const directory = temporary()
    const own = await mirrorIn(directory)
    await own.follow(sourceOf(logOf(...first)))
    const before = await proven(directory)
    const other = logOf(...later)
    expect(await codeOf(() => own.follow(sourceOf(other)))).toBe(code)
    const evidence = conflictsIn(directory)
    expect(evidence).toHaveLength(3)
    for (const path of evidence.filter((one) => one.endsWith('.note')))
      // Each is signed by the log itself: that is what makes it evidence.
      openCheckpoint(readFileSync(join(directory, path), 'utf8'), verifiers)
    own[Symbol.dispose]()
    expect(await proven(directory)).toEqual(before)
    expect(await codeOf(() => mirrorIn(directory))).toBe('mirror.conflict')
    rmSync(join(directory, 'conflict'), { recursive: true })
    // Whoever looks away by removing the evidence is told again.
    const again = await mirrorIn(directory)
    expect(await codeOf(() => again.follow(sourceOf(other)))).toBe(code)
  })

  test('signed by another key is no head at all', async () => {
    const own = await mirrorIn()
    const note = readFileSync(join(logOf([3]), 'checkpoint'), 'utf8')
    const forged = note.replace(/^3$/m, '4')
    const source = sourceOf(logOf([3]), { checkpoint: () => Promise.resolve(forged) })
    expect(await codeOf(() => own.follow(source))).toBe('note.signature')
    expect(own.size).toBe(0)
  })
})

describe('a log of another name', () => {
  const other = 'plant.example/audit/other/1'
  const renamed = async (log: string): Promise<string> =>
    (await sourceOf(log).checkpoint()).replace(/^.*$/m, other)

  test.for([
    { name: 'shown as a head', checkpoint: renamed },
    {
      name: 'named by its gateway',
      checkpoint: () => Promise.reject(new AuditError('mirror.other', `the log here is ${other}`)),
    },
  ])('$name, is an alarm with evidence where one is held', async ({ checkpoint }) => {
    const log = logOf([5])
    const directory = temporary()
    const own = await mirrorIn(directory)
    await own.follow(sourceOf(log))
    const before = own.held?.note
    const source = sourceOf(log, { checkpoint: () => checkpoint(log) })
    await expect(own.follow(source)).rejects.toMatchObject({
      code: 'mirror.other',
      message: expect.stringContaining(other) as string,
    })
    expect(own.held?.note).toBe(before)
    const files = conflictsIn(directory)
    const held = files.find((file) => file.endsWith('-held.note')) ?? ''
    expect(readFileSync(join(directory, held), 'utf8')).toContain(`${origin}\n5\n`)
    own[Symbol.dispose]()
    // It does not go on by itself after a restart: somebody has to look first.
    expect(await codeOf(() => mirrorIn(directory))).toBe('mirror.conflict')
  })

  test('is a mistake of whoever gave the keys where nothing is held', async () => {
    const log = logOf([5])
    const directory = temporary()
    const own = await mirrorIn(directory)
    const source = sourceOf(log, { checkpoint: () => renamed(log) })
    expect(await codeOf(() => own.follow(source))).toBe('note.invalid')
    expect(conflictsIn(directory)).toEqual([])
  })
})

describe('a source that serves what was not signed', () => {
  /** One bit of the files that `only` names, in their last event or hash. */
  const altered = (only: RegExp) => (source: MirrorSource) => ({
    ...source,
    async tile(path: string) {
      const bytes = Buffer.from(await source.tile(path))
      if (only.test(path)) bytes[bytes.length - 30] = (bytes.at(-30) ?? 0) ^ 1
      return bytes
    },
  })
  test.for([
    { name: 'an altered event', lie: altered(/entries\/000/), code: 'mirror.unproven' },
    { name: 'an altered last event', lie: altered(/entries\/005/), code: 'mirror.unproven' },
    { name: 'an altered hash', lie: altered(/tile\/0/), code: 'mirror.unproven' },
    {
      name: 'a bundle cut short',
      lie: (source: MirrorSource) => ({
        ...source,
        tile: async (path: string) => (await source.tile(path)).subarray(0, -1),
      }),
      code: 'mirror.source',
    },
  ])('$name: nothing of it is kept or cosigned', async ({ lie, code }) => {
    const log = logOf([200])
    const directory = temporary()
    const own = await mirrorIn(directory)
    await own.follow(sourceOf(log))
    logOf([1_100], 'more', log)
    expect(await codeOf(() => own.follow(lie(sourceOf(log))))).toBe(code)
    expect(own.held?.size).toBe(200)
    expect(await proven(directory)).toMatchObject({ outcome: 'proven' })
    expect(conflictsIn(directory)).toEqual([])
    expect(await own.follow(sourceOf(log))).toMatchObject({ checkpoint: { size: 1_300 } })
    expect(await proven(directory)).toMatchObject({ outcome: 'proven', events: 1_300 })
  })
})

describe('a log that goes on behind its end', () => {
  /** 300 events, of which the last ends it. */
  function ended(): string {
    const directory = logOf([299])
    const own = writer(directory)
    own.open()
    const closing = closingEvent({ successor: second.origin, keys: second.vkeys })
    own.write(textsOf({ origin, ...keys, vkeys }, [closing]))
    own.sign(1_800_000_000_000)
    own.close()
    return directory
  }
  test.for([
    { name: 'that had it to its end', before: true },
    { name: 'that comes later', before: false },
  ])('is evidence to a mirror $name, which keeps nothing of that', async ({ before }) => {
    const log = ended()
    const directory = temporary()
    const own = await mirrorIn(directory)
    if (before) {
      const looked = await own.follow(sourceOf(log))
      expect(looked).toMatchObject({ events: 300, ended: { successor: second.origin } })
    }
    logOf([5], 'more', log)
    expect(await codeOf(() => own.follow(sourceOf(log)))).toBe('mirror.fork')
    expect(own.size).toBe(before ? 300 : 0)
    expect(conflictsIn(directory)).toHaveLength(3)
    own[Symbol.dispose]()
    expect(await codeOf(() => mirrorIn(directory))).toBe('mirror.conflict')
    // Whoever has looked at it and moved it away has a copy that opens.
    rmSync(join(directory, 'conflict'), { recursive: true })
    expect(await codeOf(() => mirrorIn(directory))).toBe('accepted')
    if (before) expect(await proven(directory)).toMatchObject({ outcome: 'proven', events: 300 })
  })
})

test('cut off at every call of the disk: what is there then holds, and it goes on', async () => {
  const log = logOf([1_280, 20])
  let calls = 0
  const counting = wrap(realDisk, () => void calls++)
  await (await mirrorIn(temporary(), counting)).follow(sourceOf(log))
  expect(calls).toBeGreaterThan(12)
  for (let stop = 0; stop < calls; stop++) {
    const directory = temporary()
    let left = stop
    const failing = wrap(realDisk, () => {
      if (left-- === 0) throw new Error('cut off')
    })
    await mirrorIn(directory, failing).then(
      async (own) => {
        await expect(own.follow(sourceOf(log))).rejects.toThrow('cut off')
        own[Symbol.dispose]()
      },
      (error: unknown) => expect(String(error)).toContain('cut off'),
    )
    const again = await mirrorIn(directory)
    await again.follow(sourceOf(log))
    again[Symbol.dispose]()
    expect(await proven(directory), `cut at call ${stop}`).toMatchObject({
      outcome: 'proven',
      events: 1_300,
      uncovered: 0,
    })
  }
})

/** A disk whose every call that changes something is announced first. */
function wrap(disk: Disk, before: () => void): Disk {
  const first =
    <A extends unknown[], R>(act: (...args: A) => R) =>
    (...args: A): R => {
      before()
      return act(...args)
    }
  return {
    ...disk,
    openAppend: first(disk.openAppend),
    pwrite: first(disk.pwrite),
    fdatasync: first(disk.fdatasync),
    truncate: first(disk.truncate),
    replace: first(disk.replace),
  }
}

test('killed again and again while it follows: it resumes, and cosigned only what it had', async () => {
  const log = logOf([1_000, 1_000, 1_000, 1_000])
  const directory = temporary()
  makeMirrorKeys(directory, name)
  const { vkeys: own } = readMirrorKeys(directory)
  const child = new URL('./mirror-child.ts', import.meta.url).pathname
  const keyFile = join(temporary(), 'keys')
  writeFileSync(keyFile, vkeys.join('\n'))
  let ended = 0
  for (let loop = 0; loop < 6; loop++) {
    const running = spawn(process.execPath, [child, directory, log, keyFile], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let asked = 0
    running.stdout.on('data', (chunk: Buffer) => {
      asked += chunk.toString().split('\n').length - 1
      if (asked > loop * 5) running.kill('SIGKILL')
    })
    const [code] = (await once(running, 'close')) as [number | null]
    if (code === 0) ended++
    // Whatever was cosigned is here in full, also between two lives.
    if (existsSync(join(directory, 'checkpoint')))
      expect(await verifyLog({ directory, verifierKeys: vkeys, witnessKeys: own })).toMatchObject({
        outcome: expect.stringMatching(/proven/) as string,
      })
  }
  if (ended === 0) {
    const running = spawn(process.execPath, [child, directory, log, keyFile], { stdio: 'ignore' })
    expect((await once(running, 'close'))[0]).toBe(0)
  }
  expect(await verifyLog({ directory, verifierKeys: vkeys, witnessKeys: own })).toMatchObject({
    outcome: 'proven',
    events: 4_000,
    uncovered: 0,
  })
})

describe('the keys of a mirror', () => {
  test('are made once, for their owner alone', () => {
    const directory = temporary()
    const made = makeMirrorKeys(directory, name)
    expect(readMirrorKeys(directory).vkeys).toEqual(made.vkeys)
    expect(() => makeMirrorKeys(directory, name)).toThrow(/already/)
    expect(statSync(join(directory, 'mirror-ed25519.key.pem')).mode & 0o077).toBe(0)
    expect(() => makeMirrorKeys(temporary(), 'two words')).toThrow(/no name/)
  })
})

describe('what witnesses hand in', () => {
  async function cosigned(log: string): Promise<string> {
    let note = ''
    const own = await mirrorIn()
    await own.follow(sourceOf(log, { submit: (one) => Promise.resolve(void (note = one)) }))
    own[Symbol.dispose]()
    return note
  }
  const witnessesOf = (directory: string): Witnesses =>
    new Witnesses({
      directory,
      verifiers,
      witnesses: witnessKeys.map(parseWitnessKey),
      disk: realDisk,
    })

  test('is kept beside the log, served with its head and counted by verify', async () => {
    const log = logOf([10])
    const note = await cosigned(log)
    expect(await proven(log)).toMatchObject({
      outcome: 'not-provable',
      why: '0 of the 1 witnesses wanted cosigned it',
    })
    const room = witnessesOf(log)
    expect(room.offer(note)).toMatchObject([{ name, size: 10 }])
    // Twice says no more than once.
    expect(room.offer(note)).toEqual([])
    const head = openCheckpoint(readFileSync(join(log, 'checkpoint'), 'utf8'), verifiers)
    expect(room.cosigned(head)).toBe(note)
    expect(witnessesOf(log).newest()?.note).toBe(note)
    expect(await proven(log)).toMatchObject({ outcome: 'proven', witnesses: [{ size: 10 }] })
    expect(await proven(log, 2)).toMatchObject({ outcome: 'not-provable' })
  })

  test('by somebody unknown, or not signed by this log, is refused', async () => {
    const log = logOf([10])
    const note = await cosigned(log)
    const strangers = new Witnesses({ directory: log, verifiers, witnesses: [], disk: realDisk })
    expect(() => strangers.offer(note)).toThrow(/no witness known here/)
    expect(() => witnessesOf(log).offer(note.replace(/^10$/m, '11'))).toThrow(/does not hold/)
    const half = note.split('\n').slice(0, -2).join('\n')
    // One of a witness's two signatures is not its word.
    expect(() => witnessesOf(log).offer(`${half}\n`)).toThrow(/no witness known here/)
  })

  test('of a history that was rewritten since convicts the log', async () => {
    const log = logOf([10])
    const note = await cosigned(log)
    const rewritten = logOf([12], 'other')
    expect(() => witnessesOf(rewritten).offer(note)).toThrow(/not in/)
    expect(existsSync(join(rewritten, 'witness'))).toBe(true)
    // And an auditor who has the note alone sees it too.
    const verdict = await verifyLog({
      directory: rewritten,
      verifierKeys: vkeys,
      witnessKeys,
      held: [note],
    })
    expect(verdict).toMatchObject({ outcome: 'violated' })
  })

  test('of a log that went back in time convicts it', async () => {
    const log = logOf([10])
    const copy = join(temporary(), 'copy')
    cpSync(log, copy, { recursive: true })
    logOf([5], 'later', log)
    const note = await cosigned(log)
    expect(() => witnessesOf(copy).offer(note)).toThrow(/15 events/)
  })
})
