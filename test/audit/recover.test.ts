import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { AuditError } from '#audit'
import { realDisk, type Disk } from '../../audit/disk.ts'
import { LogReader } from '../../audit/read.ts'
import { readFrame } from '../../audit/segment.ts'
import { heads, origin, temporary, writer } from './fixture.ts'
import { tryImage } from './images.ts'

const now = 1_800_000_000_000
const first = 'seg/00000000000000000000.aud'

function refusal(directory: string): AuditError | null {
  const one = writer(directory)
  try {
    one.open()
    return null
  } catch (error) {
    return error as AuditError
  } finally {
    one.close()
  }
}

function sizeOf(directory: string): number {
  const one = writer(directory)
  const { size } = one.open()
  one.close()
  return size
}

/** Three batches of five, signed after the second. */
function sample(): string {
  const directory = temporary()
  const one = writer(directory)
  one.open()
  one.write(heads(5, 'a'))
  one.write(heads(5, 'b'))
  one.sign(now)
  one.write(heads(5, 'c'))
  one.close()
  return directory
}

describe('a clean log', () => {
  test('is found as it was left', () => {
    const directory = sample()
    const one = writer(directory)
    expect(one.open()).toMatchObject({
      size: 15,
      quarantinedBytes: 0,
      place: null,
      signed: { size: 10 },
    })
    one.close()
  })
  test('goes on in the same tree: the head after a restart is the head without one', () => {
    const directory = sample()
    const again = writer(directory)
    again.open()
    const more = heads(3, 'd')
    again.write(more)
    const root = again.sign(now)?.root
    again.close()
    const texts = [...new LogReader(directory, origin).bodies(0)].map(({ body }) =>
      Buffer.from(body).toString(),
    )
    const other = temporary()
    const straight = writer(other)
    straight.open()
    straight.write(texts.map((text) => text.slice(0, text.lastIndexOf('"sequence":') + 11)))
    expect(straight.sign(now)?.root).toBe(root)
    straight.close()
  })
})

describe('a torn tail', () => {
  test.for([
    { name: 'cut inside the last frame', cut: 7 },
    { name: 'cut inside the last header', cut: 400 },
  ])('$name is moved aside, and every synced batch stays', ({ cut }) => {
    const directory = sample()
    const path = join(directory, first)
    const before = readFileSync(path)
    truncateSync(path, before.length - cut)
    const one = writer(directory)
    const opened = one.open()
    one.close()
    expect(opened.size).toBe(14)
    expect(opened.quarantinedBytes).toBeGreaterThan(0)
    expect(opened.place).toMatchObject({ segment: first, idx: 14 })
    const [saved] = readdirSync(join(directory, 'quarantine'))
    const kept = readFileSync(join(directory, 'quarantine', saved as string))
    expect(
      Buffer.concat([readFileSync(path), kept]).equals(before.subarray(0, before.length - cut)),
    ).toBe(true)
    expect(sizeOf(directory)).toBe(14)
  })
  test('in checkpoints.log costs only the note that was being written', () => {
    const directory = sample()
    const one = writer(directory)
    one.open()
    one.sign(now)
    one.close()
    const path = join(directory, 'checkpoints.log')
    const notes = readFileSync(path)
    const published = notes.toString().split('\n\n').slice(0, 2).join('\n\n')
    // The crash came before the newer head was published.
    writeFileSync(join(directory, 'checkpoint'), `${published}\n`)
    for (const cut of [1, 100, 2_000, 3_000]) {
      const copy = temporary()
      cpSync(directory, copy, { recursive: true })
      truncateSync(join(copy, 'checkpoints.log'), notes.length - cut)
      expect(refusal(copy)).toBeNull()
      expect(sizeOf(copy)).toBe(15)
    }
  })
})

describe('what no torn write explains is refused and left alone', () => {
  test.for([
    {
      name: 'a byte changed in the first batch',
      damage: (bytes: Buffer) => flip(bytes, 100),
      code: 'log.corrupt',
    },
    { name: 'a frame removed', damage: (bytes: Buffer) => without(bytes, 3), code: 'log.corrupt' },
    {
      name: 'two frames exchanged',
      damage: (bytes: Buffer) => exchanged(bytes, 3, 4),
      code: 'log.corrupt',
    },
    {
      name: 'a frame repeated',
      damage: (bytes: Buffer) => repeated(bytes, 3),
      code: 'log.corrupt',
    },
    {
      name: 'cut below what was signed',
      damage: (bytes: Buffer) => bytes.subarray(0, endOf(bytes, 6) + 9),
      code: 'log.rollback',
    },
    {
      name: 'cut cleanly below what was signed',
      damage: (bytes: Buffer) => bytes.subarray(0, endOf(bytes, 7)),
      code: 'log.rollback',
    },
  ])('$name: $code', ({ damage, code }) => {
    const directory = sample()
    const path = join(directory, first)
    const damaged = Buffer.from(damage(readFileSync(path)))
    writeFileSync(path, damaged)
    const error = refusal(directory)
    expect(error?.code).toBe(code)
    expect(error?.place).toMatchObject({ origin, segment: first })
    expect(readFileSync(path).equals(damaged)).toBe(true)
    expect(existsSync(join(directory, 'quarantine'))).toBe(false)
  })
  test('another history, whole in itself, is a rollback', () => {
    const directory = sample()
    const other = sample()
    cpSync(join(other, 'seg'), join(directory, 'seg'), { recursive: true })
    expect(refusal(directory)?.code).toBe('log.rollback')
  })
  test('a log put back from before its last published head is a rollback', () => {
    const directory = sample()
    const copy = temporary()
    cpSync(directory, copy, { recursive: true })
    const one = writer(directory)
    one.open()
    one.sign(now)
    one.close()
    cpSync(join(directory, 'checkpoint'), join(copy, 'checkpoint'))
    expect(refusal(copy)?.code).toBe('log.rollback')
  })
  test('an older segment may not be damaged at all, not even its end', () => {
    const directory = temporary()
    const one = writer(directory, realDisk, 4_096)
    one.open()
    for (let i = 0; i < 6; i++) one.write(heads(4, String(i)))
    one.close()
    const names = readdirSync(join(directory, 'seg')).toSorted()
    expect(names.length).toBeGreaterThan(2)
    const path = join(directory, 'seg', names[0] as string)
    truncateSync(path, readFileSync(path).length - 3)
    expect(refusal(directory)).toMatchObject({
      code: 'log.corrupt',
      place: { segment: `seg/${names[0]}` },
    })
  })
  test('a segment that is gone is named', () => {
    const directory = temporary()
    const one = writer(directory, realDisk, 4_096)
    one.open()
    for (let i = 0; i < 6; i++) one.write(heads(4, String(i)))
    one.close()
    const names = readdirSync(join(directory, 'seg')).toSorted()
    rmSync(join(directory, 'seg', names[1] as string))
    expect(refusal(directory)?.place?.what).toContain('begins at')
  })
})

function frames(bytes: Buffer): { from: number; end: number }[] {
  const found: { from: number; end: number }[] = []
  for (let from = 0; from < bytes.length;) {
    const frame = readFrame(bytes, from)
    if (typeof frame === 'string') break
    found.push({ from, end: frame.end })
    from = frame.end
  }
  return found
}
const slice = (bytes: Buffer, i: number): Buffer => {
  const { from = 0, end = 0 } = frames(bytes)[i] ?? {}
  return bytes.subarray(from, end)
}
const endOf = (bytes: Buffer, i: number): number => frames(bytes)[i]?.end ?? 0
const all = (bytes: Buffer): Buffer[] =>
  frames(bytes).map(({ from, end }) => bytes.subarray(from, end))
const flip = (bytes: Buffer, at: number): Buffer => {
  const changed = Buffer.from(bytes)
  changed[at] = (changed[at] as number) ^ 0x20
  return changed
}
const without = (bytes: Buffer, i: number): Buffer => Buffer.concat(all(bytes).toSpliced(i, 1))
const repeated = (bytes: Buffer, i: number): Buffer =>
  Buffer.concat(all(bytes).toSpliced(i, 0, slice(bytes, i)))
const exchanged = (bytes: Buffer, i: number, j: number): Buffer =>
  Buffer.concat(all(bytes).with(i, slice(bytes, j)).with(j, slice(bytes, i)))

test('200 images of a batch whose sectors arrived in part: no false alarm, nothing synced lost', () => {
  for (let seed = 1; seed <= 200; seed++) tryImage(seed, { writer, heads })
})

class PowerCut extends Error {}

/** A disk that stops at its nth act, the write among them half done, and refuses everything after. */
function dyingDisk(n: number): { disk: Disk; acts: () => number } {
  let count = 0
  const act =
    <A extends unknown[], R>(does: (...args: A) => R, half?: (...args: A) => void) =>
    (...args: A): R => {
      count++
      if (count === n) half?.(...args)
      if (count >= n) throw new PowerCut()
      return does(...args)
    }
  const disk: Disk = {
    openAppend: act(realDisk.openAppend),
    pwrite: act(realDisk.pwrite, (fd, bytes, position) => {
      realDisk.pwrite(fd, bytes.subarray(0, Math.floor(bytes.length / 2)), position)
    }),
    fdatasync: act(realDisk.fdatasync),
    close: realDisk.close,
    remove: act(realDisk.remove),
    rename: act(realDisk.rename),
    truncate: act(realDisk.truncate),
    replace: act(realDisk.replace),
    syncDirectory: act(realDisk.syncDirectory),
    freeBytes: realDisk.freeBytes,
  }
  return { disk, acts: () => count }
}

test('power cut at every single act on the disk: what was acknowledged is there, byte for byte', () => {
  const play = (n: number): { directory: string; acked: string[]; acts: number; done: boolean } => {
    const directory = temporary()
    const { disk, acts } = dyingDisk(n)
    const one = writer(directory, disk, 6_000)
    const acked: string[] = []
    let done = false
    try {
      one.open()
      for (let batch = 0; batch < 6; batch++) {
        const texts = heads(3, `batch ${batch}`)
        const { first: from } = one.write(texts)
        acked.push(...texts.map((text, i) => `${text}${from + i}}}`))
        if (batch % 2 === 1) one.sign(now)
      }
      done = true
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error
    }
    one.close()
    return { directory, acked, acts: acts(), done }
  }
  const total = play(Number.POSITIVE_INFINITY).acts
  expect(total).toBeGreaterThan(30)
  for (let n = 1; n <= total; n++) {
    const { directory, acked, done } = play(n)
    expect(done).toBe(false)
    expect(refusal(directory), `act ${n}`).toBeNull()
    const kept = [...new LogReader(directory, origin).bodies(0)].map(({ body }) =>
      Buffer.from(body).toString(),
    )
    expect(kept.slice(0, acked.length), `act ${n}`).toEqual(acked)
  }
})

test('a short write goes on where it stopped', () => {
  const directory = temporary()
  const one = writer(directory, {
    ...realDisk,
    pwrite: (fd, bytes, at) => realDisk.pwrite(fd, bytes.subarray(0, 100), at),
  })
  one.open()
  one.write(heads(4))
  one.sign(now)
  one.close()
  expect(sizeOf(directory)).toBe(4)
})
