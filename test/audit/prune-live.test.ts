/** Letting go of the oldest events while the gateway writes: readers, writers and a kill at any step see a whole log. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openLog, openWitnesses, pruneLog, verifyLog } from '#audit'
import { signCheckpoint } from '../../audit/checkpoint.ts'
import { realDisk, type Disk } from '../../audit/disk.ts'
import { walkNotes } from '../../audit/notes.ts'
import { pruneEvent } from '../../audit/prune-plan.ts'
import { LogReader, NoteReader } from '../../audit/read.ts'
import { listSegments } from '../../audit/recover.ts'
import { thinNotes, thinnedPath } from '../../audit/thin.ts'
import { leafHash } from '../../audit/tree.ts'
import { fillable } from './fillable.ts'
import {
  eventually,
  heads,
  logOptions,
  open,
  origin,
  shared,
  signers,
  start,
  stats,
  temporary,
  vkeys,
  writer,
} from './fixture.ts'
import { imagingThread, signingThread } from './imaging.ts'
import { Month } from './month.ts'

const MIB = 1024 * 1024
const segmentBytes = 12_000
const limits = { segmentBytes, checkpointMs: 200, checkpointLeaves: 200 }

/** A plant's log of five hours in many segments, and a copy of it. */
const whole = shared()
const month = new Month(join(whole, 'log'), segmentBytes)
month.every = 10
month.pass(300)
month.one.sign(month.time)
month.one.close()
cpSync(join(whole, 'log'), join(whole, 'archive'), { recursive: true })

interface Place {
  readonly log: string
  readonly archive: string
}
function copy(): Place {
  const at = temporary()
  cpSync(whole, at, { recursive: true })
  return { log: join(at, 'log'), archive: join(at, 'archive') }
}
const before = month.time
const verify = (directory: string) => verifyLog({ directory, verifierKeys: vkeys })
const begins = (directory: string): number => new LogReader(directory, origin).first
const codeOf = (error: unknown): string => (error as { code?: string }).code ?? String(error)

test('pruned under eight writers and two readers: each event has its place, and every look proves it', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  let going = true
  const acked = new Map<number, string>()
  const write = async (caller: number): Promise<void> => {
    for (let n = 0; going && n < 150; n++) {
      const { idx, leaf } = await log.append(stats(n, `caller ${caller}`))
      acked.set(idx, leaf)
    }
  }
  const seen: string[] = []
  const read = async (from: number): Promise<void> => {
    const reader = new LogReader(place.log, origin)
    // One look after the end sees the file that took the heads' place.
    for (let looks = 0, last = false; !last; looks++) {
      // Busy enough beside the prune; at the end it only waits for that.
      if (going && looks > 20) await pruning
      last = !going
      for (const { idx, body, cp } of reader.entries(from, log.signed.size, 400)) {
        const text = Buffer.from(body).toString()
        if (!text.endsWith(`"sequence":${idx}}}`) || cp === null) seen.push(`event ${idx}: ${cp}`)
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const verdicts: unknown[] = []
  const look = async (): Promise<void> => {
    for (let n = 0; going && n < 5; n++) verdicts.push((await verify(place.log)).outcome)
  }
  const pruning = log.prune({ archive: place.archive, before }).finally(() => (going = false))
  const others = [...Array.from({ length: 8 }, (_, n) => write(n)), read(0), read(250)]
  others.push(look())
  const pruned = await pruning
  await Promise.all(others)
  expect(pruned).toMatchObject({ from: 0, first: begins(place.log) })
  expect(pruned.segments).toBeGreaterThan(5)
  expect(pruned.heads).toBeGreaterThan(5)
  expect(seen).toEqual([])
  expect(new Set(verdicts)).toEqual(new Set(['proven']))
  await log.close()
  const kept = new LogReader(place.log, origin).entries(pruned.first, Infinity, Infinity, Infinity)
  const leaves = new Map(kept.map(({ idx, leaf }) => [idx, leaf]))
  expect([...acked].filter(([idx, leaf]) => leaves.get(idx) !== leaf)).toEqual([])
  expect(await verify(place.log)).toMatchObject({ outcome: 'proven', pruned: pruned.first })
})

test('whoever reads a log slower than its segments go still proves what is left', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  const asked = { archive: place.archive, before, dry: true }
  const pruned = await log.prune(asked)
  await log.append(pruneEvent(pruned, place.archive))
  await log.checkpoint()
  await log.close()
  const going = listSegments(place.log).slice(0, pruned.segments)
  expect(going.length).toBeGreaterThan(12)
  const looking = verify(place.log)
  // Two go for each that is read: a look loses every race for its second segment.
  while (going.length > 0) {
    for (const name of going.splice(0, 2)) rmSync(join(place.log, 'seg', name))
    await new Promise((resolve) => setImmediate(resolve))
  }
  const verdict = await looking
  expect(verdict).toMatchObject({ outcome: 'proven' })
  // Where its last look began: far behind what a few looks come to.
  expect(verdict.pruned).toBeGreaterThan(pruned.first / 2)
})

test('killed at any step, or after the last: the next start finds a whole log, and the next prune does the rest', async () => {
  const place = copy()
  const images = temporary()
  const log = await open(place.log, {
    limits,
    thread: imagingThread(temporary(), place.log, images),
  })
  const { first } = await log.prune({ archive: place.archive, before })
  await log.close()
  const names = readdirSync(images)
  expect(names).toHaveLength(4)
  for (const name of names) {
    const directory = join(images, name)
    expect(await verify(directory), name).toMatchObject({ outcome: 'proven' })
    await (await openLog(logOptions(directory, { limits }))).close()
    expect(existsSync(join(directory, 'checkpoints.log.thin')), name).toBe(false)
    await pruneLog({ ...logOptions(directory), archive: place.archive, before })
    expect(await verify(directory), name).toMatchObject({ outcome: 'proven', pruned: first })
  }
})

test('a head that was thinned and that somebody still holds speaks against nobody; one that never was does', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  const { first } = await log.prune({ archive: place.archive, before })
  const witnesses = openWitnesses(place.log, vkeys, [])
  const held = [...walkNotes(join(place.archive, 'checkpoints.log'))].flatMap((found) =>
    'checkpoint' in found ? [found.checkpoint] : [],
  )
  expect(held.filter(({ size }) => size < first).length).toBeGreaterThan(10)
  expect(held.filter(({ note }) => witnesses.stray(note) !== null)).toEqual([])
  const [old] = held
  const other = signCheckpoint({ origin, size: 3, root: leafHash(Buffer.from('x')) }, signers, 1)
  expect(old?.size).toBeLessThan(first)
  expect(witnesses.stray(other.note)).toMatch(/holds a head of 3 events/)
})

test('a head that is half written while the others are thinned is no damage', async () => {
  const place = copy()
  const log = await open(place.log, {
    limits: { ...limits, checkpointMs: 600_000 },
    thread: signingThread(temporary(), place.log, `${origin}\n9`),
  })
  const pruned = await log.prune({ archive: place.archive, before })
  expect(pruned.heads).toBeGreaterThan(5)
  await log.append(stats(1))
  await log.close()
  expect(await verify(place.log)).toMatchObject({ outcome: 'proven', pruned: pruned.first })
})

test('a reader that slept while the heads were thinned, and finds another file by the same number, finds its way', () => {
  const { log } = copy()
  const path = join(log, 'checkpoints.log')
  const readers = Array.from({ length: 30 }, (_, n) => {
    const reader = new NoteReader(log, origin)
    return { reader, due: reader.covering(10 * n)?.size ?? 0 }
  })
  const { ino } = statSync(path)
  thinNotes(path, 200)
  writeFileSync(path, readFileSync(thinnedPath(path)))
  expect(statSync(path).ino).toBe(ino)
  for (const { reader, due } of readers)
    expect(reader.covering(due)).toEqual(new NoteReader(log, origin).covering(due))
})

test('a mirror that is behind keeps what it still needs', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  const held = [...walkNotes(join(place.archive, 'checkpoints.log'))].flatMap((found) =>
    'checkpoint' in found && found.checkpoint.size === 30 ? [found.checkpoint.note] : [],
  )
  mkdirSync(join(place.log, 'witness'))
  writeFileSync(join(place.log, 'witness', '0123456789abcdef.note'), held[0] ?? '')
  const pruned = await log.prune({ archive: place.archive, before })
  expect(pruned.first).toBeLessThanOrEqual(30)
  expect(pruned.held).toContain('a mirror has 30 events')
})

test('what a session that is open began with stays: after a crash its end is written from there', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  const { idx } = await log.append(start)
  const asked = { archive: place.archive, before: Date.now() + 86_400_000, dry: true }
  await Promise.all(Array.from({ length: 600 }, (_, n) => log.append(stats(n))))
  await Promise.all(Array.from({ length: 600 }, (_, n) => log.append(stats(n))))
  await log.checkpoint()
  rmSync(place.archive, { recursive: true })
  cpSync(place.log, place.archive, { recursive: true })
  const pruned = await log.prune(asked)
  expect(pruned.first).toBeLessThanOrEqual(idx)
  expect(pruned.held).toBe(`session ${start.session} began with event ${idx} and has not ended`)
  await log.append({
    code: 'session.end',
    message: 'ended',
    status: 'success',
    reason: 'client_done',
    ...('device' in start ? { device: start.device, process: start.process } : {}),
    session: start.session,
    grant: start.grant,
    data: { bytes_in: 0, bytes_out: 0, duration_ms: 1, start_idx: idx, decision_ids: [] },
  })
  const after = await log.prune(asked)
  expect(after.first).toBeGreaterThan(idx)
  // It said so, and did nothing.
  expect(begins(place.log)).toBe(0)
})

test('one at a time, and none goes on in a log that is closed', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  const one = log.prune({ archive: place.archive, before })
  expect(await log.prune({ archive: place.archive, before }).catch(codeOf)).toBe('prune.busy')
  const [ended] = await Promise.all([one.catch(codeOf), log.close()])
  expect(ended).toBe('log.closed')
  expect(await log.prune({ archive: place.archive, before }).catch(codeOf)).toBe('log.closed')
  expect(await verify(place.log)).toMatchObject({ outcome: 'proven' })
})

test('on a disk that the log has filled the prune that is due is recorded and done', async () => {
  const place = copy()
  const disk = fillable(temporary())
  const kept = { closeoutBytes: 2 * MIB, breakglassBytes: 2 * MIB }
  const log = await open(place.log, {
    thread: disk.thread,
    limits: { ...limits, ...kept, floorBytes: MIB, warnBytes: MIB, watchMs: 5 },
  })
  await eventually(() => log.room.reserve?.missing === 0)
  disk.fill()
  await eventually(() => log.state === 'CLOSED_NEW')
  expect(await log.append(stats(1)).catch(codeOf)).toBe('log.full')
  const pruned = await log.prune({ archive: place.archive, before })
  expect(pruned.segments).toBeGreaterThan(5)
  expect(begins(place.log)).toBe(pruned.first)
  await log.close()
  expect(await verify(place.log)).toMatchObject({ outcome: 'proven', pruned: pruned.first })
})

test('an archive that does not hold is refused before anything is recorded', async () => {
  const place = copy()
  const log = await open(place.log, { limits })
  const size = log.size
  for (const archive of [place.log, temporary()])
    expect(await log.prune({ archive, before }).catch(codeOf), archive).toBe('prune.archive')
  expect(log.size).toBe(size)
  expect(begins(place.log)).toBe(0)
})

/** A writer that has pruned in part: what is left of the heads lies beside them. */
function thinned(disk: Partial<Disk> = {}) {
  const { log } = copy()
  const one = writer(log, { ...realDisk, ...disk })
  one.open()
  const { end } = thinNotes(join(log, 'checkpoints.log'), 200)
  one.write(heads(1))
  one.sign(before)
  return { log, one, end }
}
const failing = (code: string) => (): never => {
  throw Object.assign(new Error(code), { code })
}

test('a full disk, or a rename that fails, leaves the heads as they were', async () => {
  for (const disk of [{ rename: failing('ENOSPC') }, { rename: failing('EIO') }]) {
    const { log, one, end } = thinned(disk)
    const { size } = statSync(join(log, 'checkpoints.log'))
    expect(() => one.adopt(end)).toThrow(/could not be brought to its end/)
    expect(statSync(join(log, 'checkpoints.log')).size).toBe(size)
    one.write(heads(1))
    one.sign(before)
    one.close()
    expect(await verify(log)).toMatchObject({ outcome: 'proven' })
  }
})

test('a name that may not last poisons: no head is noted where a crash would lose it', async () => {
  let failed = false
  const syncDirectory = (path: string): void => {
    if (failed) return realDisk.syncDirectory(path)
    failed = true
    failing('EIO')()
  }
  let armed = false
  const { log, one, end } = thinned({
    syncDirectory: (path) => (armed ? syncDirectory(path) : realDisk.syncDirectory(path)),
  })
  armed = true
  const told = (() => {
    try {
      one.adopt(end)
    } catch (error) {
      return codeOf(error)
    }
    return 'adopted'
  })()
  // Not prune.failed, which would say that nothing happened.
  expect(told).toBe('EIO')
  one.reopen()
  one.write(heads(1))
  one.sign(before)
  one.close()
  expect(await verify(log)).toMatchObject({ outcome: 'proven' })
})

test('heads that were thinned before the log was opened anew are not taken: one of them may never have been durable', () => {
  const { log, one, end } = thinned()
  one.reopen()
  expect(() => one.adopt(end)).toThrow(/could not be brought to its end/)
  expect(readdirSync(log)).not.toContain('checkpoints.log.thin')
  one.write(heads(1))
  one.sign(before)
  one.close()
})
