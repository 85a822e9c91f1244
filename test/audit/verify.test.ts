import { generateKeyPairSync } from 'node:crypto'
import fs, {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { formatVkey, verifyLog, type Verdict } from '#audit'
import { signCheckpoint } from '../../audit/checkpoint.ts'
import { realDisk } from '../../audit/disk.ts'
import { framesAfter, headerBytes, readFrame } from '../../audit/segment.ts'
import { heads, origin, shared, signers, temporary, vkeys, writeFrame, writer } from './fixture.ts'

const now = 1_800_000_000_000
const verify = (directory: string, verifierKeys = vkeys, held: string[] = []): Promise<Verdict> =>
  verifyLog({ directory, verifierKeys, held })

/** 40 events in three segments, two heads; as large as a whole tile where asked. */
function build(directory: string, perBatch = 8): string {
  const one = writer(directory, realDisk, 12_000)
  one.open()
  for (let i = 0; i < 5; i++) {
    one.write(heads(perBatch, `batch ${i}`))
    if (i === 2) one.sign(now)
  }
  one.sign(now)
  one.close()
  return directory
}

let pristine: Map<string, Buffer>
const directoryForAll = shared()
beforeAll(() => {
  const directory = build(directoryForAll)
  pristine = new Map(
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const path = join(entry.parentPath, entry.name)
        return [path.slice(directory.length + 1), readFileSync(path)]
      }),
  )
})
function copy(): string {
  const directory = temporary()
  for (const [name, bytes] of pristine) {
    const path = join(directory, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, bytes)
  }
  return directory
}

describe('an untouched log', () => {
  test('is proven, to its last event', async () => {
    expect(await verify(copy())).toMatchObject({
      outcome: 'proven',
      events: 40,
      uncovered: 0,
      checkpoints: 2,
    })
  })
  test('is proven by either key alone', async () => {
    for (const vkey of vkeys) expect((await verify(copy(), [vkey])).outcome).toBe('proven')
  })
  test('with events behind its last head says how many are not yet signed', async () => {
    const directory = copy()
    const one = writer(directory, realDisk, 12_000)
    one.open()
    one.write(heads(3))
    one.close()
    expect(await verify(directory)).toMatchObject({ outcome: 'proven', events: 43, uncovered: 3 })
  })
})

/** Does `act` once, in the middle of the reading: when `name` of node:fs is called with what `when` knows. */
function meanwhile(
  name: 'readSync' | 'readFileSync' | 'statSync',
  when: (...args: readonly unknown[]) => boolean,
  act: () => void,
): { done: boolean } {
  const original = fs[name] as (...args: unknown[]) => unknown
  const seen = { done: false }
  const restore = (): void => {
    Object.assign(fs, { [name]: original })
    syncBuiltinESMExports()
  }
  const watching = (...args: unknown[]): unknown => {
    const result = original(...args)
    if (!when(...args)) return result
    restore()
    act()
    seen.done = true
    // What is read of a file that grew includes what it grew by.
    return name === 'readSync' ? original(...args) : result
  }
  Object.assign(fs, { [name]: watching })
  syncBuiltinESMExports()
  onTestFinished(restore)
  return seen
}

describe('a log that is being written', () => {
  test('is read to where it ended when its segment was opened, not into what is written meanwhile', async () => {
    const directory = temporary()
    const one = writer(directory, realDisk, 8 * 1024 * 1024)
    one.open()
    one.write(heads(100, 'x'.repeat(900)))
    one.sign(now)
    const grown = meanwhile(
      'readSync',
      (_, into) => (into as Buffer).length === 1024 * 1024,
      () => {
        for (let i = 0; i < 11; i++) one.write(heads(100, 'x'.repeat(900)))
      },
    )
    expect(await verify(directory)).toMatchObject({ outcome: 'proven', events: 100 })
    expect(grown.done).toBe(true)
    expect(await verify(directory)).toMatchObject({ outcome: 'proven', events: 1_200 })
    one.close()
  })
  test.for([
    ['checkpoint', 'readFileSync'],
    ['checkpoints.log', 'statSync'],
  ] as const)('may sign heads while %s is read', async ([name, call]) => {
    const directory = copy()
    const one = writer(directory, realDisk, 12_000)
    one.open()
    const signing = meanwhile(
      call,
      (path) => path === join(directory, name),
      () => {
        for (let i = 0; i < 3; i++) {
          one.write(heads(2))
          one.sign(now)
        }
      },
    )
    const { outcome, events, why } = await verify(directory)
    expect({ outcome, events, why }).toEqual({ outcome: 'proven', events: 46, why: undefined })
    expect(signing.done).toBe(true)
    one.close()
  })
})

describe('one byte changed', () => {
  test('anywhere in the events is found, and its frame named', async () => {
    let tried = 0
    for (const [name, bytes] of pristine) {
      if (!name.startsWith('seg/')) continue
      const directory = copy()
      for (let at = 0; at < bytes.length; at += at % 600 < 40 ? 1 : 37) {
        const changed = Buffer.from(bytes)
        changed[at] = (changed[at] as number) ^ (1 << (at % 8))
        writeFileSync(join(directory, name), changed)
        const { outcome, place } = await verify(directory, vkeys.slice(0, 1))
        expect(outcome, `${name} ${at}`).toBe('violated')
        expect(place?.segment).toBe(name)
        expect(place?.offset).toBeLessThanOrEqual(at)
        const frame = readFrame(bytes, place?.offset ?? -1)
        if (typeof frame === 'string') throw new Error('the place named is no frame')
        expect(frame.end).toBeGreaterThan(at)
        expect(frame.idx).toBe(place?.idx)
        tried++
      }
      writeFileSync(join(directory, name), bytes)
    }
    expect(tried).toBeGreaterThan(1_000)
  })
  test.for(['checkpoints.log', 'checkpoint'])(
    'anywhere in %s is found, and the file named',
    async (name) => {
      const bytes = pristine.get(name) as Buffer
      const directory = copy()
      for (let at = 0; at < bytes.length; at += at < 400 ? 3 : 61) {
        const changed = Buffer.from(bytes)
        changed[at] = (changed[at] as number) ^ (1 << (at % 8))
        writeFileSync(join(directory, name), changed)
        const { outcome, place } = await verify(directory)
        expect(outcome, `${name} ${at}`).toBe('violated')
        expect(place?.segment, `${name} ${at}`).toBe(name)
      }
    },
  )
  test('in a frame that goes on past what is read at a time is found, and its frame named', async () => {
    const directory = temporary()
    const one = writer(directory, realDisk, 8 * 1024 * 1024)
    one.open()
    for (let i = 0; i < 9; i++) one.write(heads(100, 'x'.repeat(900)))
    one.sign(now)
    one.write(heads(100, 'x'.repeat(900)))
    one.close()
    expect(await verify(directory)).toMatchObject({ outcome: 'proven', events: 1_000 })
    const [name = ''] = readdirSync(join(directory, 'seg'))
    const path = join(directory, 'seg', name)
    const bytes = readFileSync(path)
    const window = 1024 * 1024
    expect(bytes.length).toBeGreaterThan(window + 100_000)
    const [across] = [...framesAfter(bytes, 0)].filter(({ end }) => end > window)
    if (across === undefined) throw new Error('no frame lies across')
    const begin = across.end - across.body.length - headerBytes
    expect(begin).toBeLessThan(window)
    for (const at of [begin, begin + 40, window - 1, window, across.end - 1]) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] as number) ^ 1
      writeFileSync(path, changed)
      const place = { segment: `seg/${name}`, offset: begin, idx: across.idx }
      expect(await verify(directory), `${at}`).toMatchObject({ outcome: 'violated', place })
    }
    // Cut off behind the last signed event, that is an interrupted write; before it, events are missing.
    writeFileSync(path, bytes.subarray(0, bytes.length - 7))
    expect(await verify(directory)).toMatchObject({ outcome: 'not-provable' })
    writeFileSync(path, bytes.subarray(0, window))
    expect(await verify(directory)).toMatchObject({ outcome: 'violated', place: { offset: begin } })
  })
  test('in a stored tile is found, and its byte named', async () => {
    const directory = build(temporary(), 60)
    const path = join(directory, 'tile/0/000')
    const bytes = readFileSync(path)
    bytes[4_711] = (bytes[4_711] as number) ^ 1
    writeFileSync(path, bytes)
    expect((await verify(directory)).place).toMatchObject({ segment: 'tile/0/000', offset: 4_711 })
  })
})

/** Rewrites a segment's bodies, with checksums that hold: what someone who knows the format would do. */
function rewrite(directory: string, name: string, change: (bodies: Buffer[]) => Buffer[]): void {
  const path = join(directory, 'seg', name)
  const bytes = readFileSync(path)
  const bodies: Buffer[] = []
  let firstIdx = -1
  const batches: number[] = []
  for (let at = 0; at < bytes.length;) {
    const frame = readFrame(bytes, at)
    if (typeof frame === 'string') throw new Error(frame)
    if (firstIdx < 0) firstIdx = frame.idx
    bodies.push(Buffer.from(frame.body))
    batches.push(frame.batch)
    at = frame.end
  }
  const changed = change(bodies)
  const out = Buffer.alloc(changed.reduce((sum, body) => sum + 32 + body.length, 0))
  let at = 0
  for (const [i, body] of changed.entries())
    at = writeFrame(out, at, firstIdx + i, batches[i] ?? batches.at(-1) ?? 0, body)
  writeFileSync(path, out)
}
const firstSegment = '00000000000000000000.aud'

describe('a forger who mends the checksums', () => {
  test.for([
    {
      name: 'edits an event',
      change: (b: Buffer[]) =>
        b.with(3, Buffer.from(b[3]?.toString().replace('traffic', 'nothing') ?? '')),
    },
    { name: 'removes an event', change: (b: Buffer[]) => b.toSpliced(3, 1) },
    {
      name: 'exchanges two events',
      change: (b: Buffer[]) => b.with(3, b[4] as Buffer).with(4, b[3] as Buffer),
    },
    { name: 'repeats an event', change: (b: Buffer[]) => b.toSpliced(3, 0, b[3] as Buffer) },
  ])('and $name is found, within the stretch one head signed', async ({ change }) => {
    const directory = copy()
    rewrite(directory, firstSegment, change)
    const { outcome, place, why } = await verify(directory)
    expect(outcome).toBe('violated')
    expect(place?.idx ?? -1, why).toBeLessThan(40)
    expect(place?.what).not.toBe('')
  })
  test('and cuts the end off is found', async () => {
    const directory = copy()
    const name = readdirSync(join(directory, 'seg')).toSorted().at(-1) as string
    rewrite(directory, name, (bodies) => bodies.slice(0, -1))
    expect(await verify(directory)).toMatchObject({
      outcome: 'violated',
      place: { idx: 39, segment: `seg/${name}` },
    })
    rmSync(join(directory, 'seg', name))
    expect((await verify(directory)).outcome).toBe('violated')
  })
  test('and signs it anew with a key of his own is found by the reader’s keys', async () => {
    const directory = temporary()
    build(directory)
    const mine = formatVkey(origin, generateKeyPairSync('ed25519').privateKey)
    expect(await verify(directory, [mine])).toMatchObject({
      outcome: 'violated',
      place: { segment: 'checkpoints.log', offset: 0 },
    })
  })
  test('and puts the whole log back to an older state is found by a note someone kept', async () => {
    const directory = temporary()
    const one = writer(directory)
    one.open()
    one.write(heads(4))
    one.sign(now)
    const older = temporary()
    cpSync(directory, older, { recursive: true })
    one.write(heads(4))
    const kept = one.sign(now)?.note as string
    one.close()
    expect((await verify(directory, vkeys, [kept])).outcome).toBe('proven')
    expect((await verify(older)).outcome).toBe('proven')
    expect(await verify(older, vkeys, [kept])).toMatchObject({
      outcome: 'violated',
      place: { idx: 4 },
    })
  })
  test('and shows another tree of the same size is found by a note someone kept', async () => {
    const forged = signCheckpoint({ origin, size: 40, root: Buffer.alloc(32, 7) }, signers, now)
    expect((await verify(copy(), vkeys, [forged.note])).outcome).toBe('violated')
  })
})

describe('what cannot be proven is not called proven', () => {
  test.for([
    { name: 'no key', prepare: () => copy(), use: [] as string[] },
    { name: 'no checkpoint', prepare: () => gone('checkpoints.log'), use: vkeys },
    { name: 'an empty directory', prepare: () => temporary(), use: vkeys },
    { name: 'a file that cannot be read', prepare: () => folder('checkpoint'), use: vkeys },
    { name: 'a tile that cannot be read', prepare: () => folder('tile/0/000'), use: vkeys },
    { name: 'a pruned beginning', prepare: () => gone(`seg/${firstSegment}`), use: vkeys },
  ])('$name', async ({ prepare, use }) => {
    const verdict = await verify(prepare(), use)
    expect(verdict.outcome).toBe('not-provable')
    expect(verdict.why).not.toBe('')
  })
  test('an unfinished write behind the last head is named, and recovery mends it', async () => {
    const directory = copy()
    const one = writer(directory, realDisk, 12_000)
    one.open()
    one.write(heads(2))
    one.close()
    const name = readdirSync(join(directory, 'seg')).toSorted().at(-1) as string
    const path = join(directory, 'seg', name)
    truncateSync(path, statSync(path).size - 5)
    expect(await verify(directory)).toMatchObject({ outcome: 'not-provable', place: { idx: 41 } })
    const again = writer(directory, realDisk, 12_000)
    again.open()
    again.close()
    expect(await verify(directory)).toMatchObject({ outcome: 'proven', events: 41 })
  })
  test('a missing published head is a violation', async () => {
    expect(await verify(gone('checkpoint'))).toMatchObject({
      outcome: 'violated',
      place: { segment: 'checkpoint' },
    })
  })
  test('a key that is none is the caller’s mistake', async () => {
    await expect(verify(copy(), ['nonsense'])).rejects.toMatchObject({ code: 'key.invalid' })
  })
})

/** A folder where a file of this name belongs; the log is long enough for a tile. */
function folder(name: string): string {
  const directory = build(temporary(), 60)
  rmSync(join(directory, name))
  mkdirSync(join(directory, name))
  return directory
}

function gone(name: string): string {
  const directory = copy()
  rmSync(join(directory, name))
  return directory
}
