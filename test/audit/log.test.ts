import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { openLog, verifyLog, type AuditLog, type LogState } from '#audit'
import { activeRoot } from '../../audit/heartbeat.ts'
import { faults, joinOf } from '../../audit/format/ocsf.ts'
import { framesAfter } from '../../audit/segment.ts'
import { faultyThread, type Fault } from './faulty.ts'
import { logOptions, open, origin, start, stats, temporary, until, vkeys } from './fixture.ts'

const parse = (body: Uint8Array): Record<string, unknown> =>
  JSON.parse(Buffer.from(body).toString()) as Record<string, unknown>
const codes = async (log: AuditLog): Promise<string[]> =>
  (await log.read(0, 10_000)).map(({ body }) => joinOf(body)?.code ?? '')
const inState = (log: AuditLog, state: LogState): Promise<void> =>
  until(
    () => log.state === state,
    (listener) => log.onState(listener),
  )

describe('appending', () => {
  test('an event is read back as it was acknowledged, whole and valid', async () => {
    const log = await open()
    const appended = await log.append(start)
    const [entry] = await log.read(appended.idx, 1)
    expect(entry).toMatchObject(appended)
    const body = parse(entry?.body ?? Buffer.of())
    expect(faults(body)).toEqual([])
    expect(body).toMatchObject({
      class_uid: 4001,
      type_uid: 400_101,
      actor: { user: { uid: 'https://idp.test|vera' } },
      unmapped: { sallyport: { process: 'plc', grant: 'g_01j00000000000000000000000' } },
      metadata: {
        event_code: 'session.start',
        sequence: appended.idx,
        log_name: origin,
        uid: appended.uid,
      },
    })
  })
  test('5,000 events from 64 callers stand in the order in which they were acknowledged', async () => {
    const log = await open()
    let next = 0
    const seen: { idx: number; n: number }[] = []
    await Promise.all(
      Array.from({ length: 64 }, async () => {
        while (next < 5_000) {
          const n = next++
          const { idx } = await log.append(stats(n))
          seen.push({ idx, n })
        }
      }),
    )
    expect(new Set(seen.map(({ idx }) => idx)).size).toBe(5_000)
    for (const { idx, n } of seen.filter((_, i) => i % 500 === 0)) {
      const [entry] = await log.read(idx, 1)
      expect(parse(entry?.body ?? Buffer.of())).toMatchObject({ traffic: { bytes_in: n } })
    }
    expect((await log.read(0, 10_000)).map(({ idx }) => idx)).toEqual(
      Array.from({ length: log.size }, (_, i) => i),
    )
  })
  test('a crowd that waits for one batch is served in two turns, not all at once', async () => {
    const log = await open()
    const callers = 600
    await Promise.all(
      Array.from({ length: callers }, async () => {
        for (let turn = 0; turn < 4; turn++) await log.append(stats(turn))
      }),
    )
    await log.close()
    const sizes = new Map<number, number>()
    const [name = ''] = readdirSync(join(log.directory, 'seg'))
    const bytes = readFileSync(join(log.directory, 'seg', name))
    for (const { batch } of framesAfter(bytes, 0)) sizes.set(batch, (sizes.get(batch) ?? 0) + 1)
    // The log's own events may be among them.
    expect(Math.max(...sizes.values())).toBeLessThanOrEqual(callers / 2 + 1)
  })
  test('a crowd that one batch holds well is served in one turn', async () => {
    const log = await open()
    const callers = 180
    await Promise.all(Array.from({ length: callers }, (_, n) => log.append(stats(n))))
    await log.close()
    const [name = ''] = readdirSync(join(log.directory, 'seg'))
    const sizes = new Map<number, number>()
    for (const { batch } of framesAfter(readFileSync(join(log.directory, 'seg', name)), 0))
      sizes.set(batch, (sizes.get(batch) ?? 0) + 1)
    expect(Math.max(...sizes.values())).toBeGreaterThanOrEqual(callers)
  })
  test('an event that cannot be written is refused by code and leaves no trace', async () => {
    const log = await open()
    const size = log.size
    await expect(log.append({ ...start, session: undefined })).rejects.toMatchObject({
      code: 'event.field',
    })
    await expect(log.append({ ...start, code: 'session.begin' as never })).rejects.toMatchObject({
      code: 'event.code',
    })
    await expect(log.append({ ...start, ticket: 'x'.repeat(40_000) })).rejects.toMatchObject({
      code: 'event.too_large',
    })
    expect(log.size).toBe(size)
  })
  test('a full queue refuses rather than grows', async () => {
    const log = await open(temporary(), { limits: { queueEvents: 10 } })
    const all = await Promise.allSettled(Array.from({ length: 30 }, (_, n) => log.append(stats(n))))
    const refused = all.filter((each) => each.status === 'rejected')
    expect(refused.length).toBe(20)
    expect(refused.every((each) => each.reason.code === 'log.overloaded')).toBe(true)
  })
  test('a clock that steps back changes times, not the order', async () => {
    let now = 1_800_000_000_000
    const log = await open(temporary(), { clock: { now: () => (now -= 60_000) } })
    for (let n = 0; n < 5; n++) await log.append(stats(n))
    await log.close()
    expect(await verifyLog({ directory: log.directory, verifierKeys: vkeys })).toMatchObject({
      outcome: 'proven',
    })
  })
  test('a new segment is begun before the old one passes its limit, and said so', async () => {
    const log = await open(temporary(), { limits: { segmentBytes: 20_000 } })
    for (let n = 0; n < 60; n++) await log.append(stats(n))
    await log.close()
    expect(readdirSync(join(log.directory, 'seg')).length).toBeGreaterThan(2)
    expect(await codes(log)).toContain('log.rotate')
    expect(await verifyLog({ directory: log.directory, verifierKeys: vkeys })).toMatchObject({
      outcome: 'proven',
    })
  })
})

describe('the signed head', () => {
  test('is forced by asking, and covers what was acknowledged before', async () => {
    const log = await open()
    const { idx } = await log.append(stats(1))
    const checkpoint = await log.checkpoint()
    expect(checkpoint.size).toBeGreaterThan(idx)
    expect(readFileSync(join(log.directory, 'checkpoint'), 'utf8')).toBe(checkpoint.note)
    const [entry] = await log.read(idx, 1)
    expect(entry?.cp).toBe(`${checkpoint.size}-${checkpoint.root.slice(0, 16)}`)
  })
  test('covers the start of a session without being asked', async () => {
    const log = await open(temporary(), { limits: { checkpointMs: 3_600_000 } })
    const { idx } = await log.append(start)
    await until(
      () => log.signed.size > idx,
      (listener) => log.onCheckpoint(listener),
    )
  })
  test('comes by itself within its time, and within its number of leaves', async () => {
    const timed = await open(temporary(), { limits: { checkpointMs: 20 } })
    const { idx } = await timed.append(stats(1))
    await until(
      () => timed.signed.size > idx,
      (listener) => timed.onCheckpoint(listener),
    )
    const counted = await open(temporary(), {
      limits: { checkpointMs: 3_600_000, checkpointLeaves: 10 },
    })
    const before = counted.signed.size
    for (let n = 0; n < 11; n++) await counted.append(stats(n))
    await until(
      () => counted.signed.size > before,
      (listener) => counted.onCheckpoint(listener),
    )
  })
})

describe('heartbeats', () => {
  test('commit to the active sessions, also when there are none, and name the one before', async () => {
    const log = await open(temporary(), { limits: { heartbeatMs: 15 } })
    const line = {
      session: 's_1',
      grant: 'g_1',
      device: 'press-07',
      process: 'plc',
      party: 'vendor',
      kind: 'ira',
      startIdx: 3,
    }
    await eventuallyCode(log, 'log.heartbeat', 2)
    log.setHeartbeat(() => [line])
    const active = (): Promise<boolean> => hasActive(log, 1)
    while (!(await active())) await new Promise((resolve) => setImmediate(resolve))
    const beats = (await log.read(0, 10_000)).filter(
      ({ body }) => joinOf(body)?.code === 'log.heartbeat',
    )
    const data = beats.map(
      ({ body }) => (parse(body)['unmapped'] as { sallyport: Record<string, unknown> }).sallyport,
    )
    expect(data[0]).toMatchObject({ active: 0, active_root: activeRoot([]) })
    expect(data[0]?.['previous']).toBeUndefined()
    expect(data[1]?.['previous']).toBe(beats[0]?.idx)
    expect(data.at(-1)).toMatchObject({ active: 1, active_root: activeRoot([line]) })
  })
  test('an order of sessions does not change what is committed to, a session does', () => {
    const line = (session: string) => ({
      session,
      grant: 'g',
      device: 'd',
      process: 'p',
      party: 'v',
      kind: 'ira',
      startIdx: 1,
    })
    expect(activeRoot([line('a'), line('b')])).toBe(activeRoot([line('b'), line('a')]))
    expect(activeRoot([line('a')])).not.toBe(activeRoot([line('b')]))
    expect(activeRoot([line('a')])).not.toBe(activeRoot([]))
  })
})

async function eventuallyCode(log: AuditLog, code: string, times: number): Promise<void> {
  for (;;) {
    if ((await codes(log)).filter((each) => each === code).length >= times) return
    await new Promise((resolve) => setImmediate(resolve))
  }
}
async function hasActive(log: AuditLog, active: number): Promise<boolean> {
  return (await log.read(0, 10_000)).some(({ body }) => {
    const own = parse(body)['unmapped'] as { sallyport?: { active?: number } }
    return own.sallyport?.active === active
  })
}

describe('opening', () => {
  test('a second writer of the same directory is refused', async () => {
    const log = await open()
    await expect(openLog(logOptions(log.directory))).rejects.toMatchObject({ code: 'log.locked' })
  })
  test('a session that had no end gets one, and its heartbeat chain goes on', async () => {
    const directory = temporary()
    const log = await open(directory)
    await log.append(start)
    await log.append({ ...start, session: 's_ended' })
    await log.append({
      code: 'session.end',
      message: 'done',
      status: 'success',
      session: 's_ended',
      reason: 'client_done',
      data: { bytes_in: 1, bytes_out: 2, duration_ms: 3 },
    })
    await log.close()
    const again = await open(directory)
    expect(again.recovered.sessions).toEqual([start.session])
    const last = (await again.read(0, 1_000)).map(({ body }) => parse(body)).at(-1)
    expect(last).toMatchObject({
      activity_id: 4,
      unmapped: {
        sallyport: {
          session: start.session,
          reason: 'node_crash',
          device: 'press-07',
          process: 'plc',
        },
      },
      actor: { user: { uid: 'https://idp.test|vera' } },
    })
    await again.close()
    const third = await open(directory)
    expect(third.recovered.sessions).toEqual([])
  })
  test('with other keys than the log was signed with is refused', async () => {
    const directory = temporary()
    await (await open(directory)).close()
    const { generateKeyPairSync } = await import('node:crypto')
    const signers = { ed25519: generateKeyPairSync('ed25519').privateKey }
    await expect(openLog(logOptions(directory, { signers }))).rejects.toMatchObject({
      code: 'log.corrupt',
    })
    await expect(
      openLog(logOptions(directory, { origin: 'other.test/audit/n/1' })),
    ).rejects.toMatchObject({ code: 'log.origin' })
  })
})

const failing = (fault: Fault): URL => faultyThread(temporary(), fault)

describe('a disk that fails', () => {
  test.for(['sync', 'write'] as const)(
    'on one %s: nobody is told yes, no new session opens, and the log recovers by itself',
    async (kind) => {
      // Opening syncs two files and writes one batch and one note: the fault comes after that.
      const log = await open(temporary(), {
        thread: failing({ kind, at: kind === 'sync' ? 6 : 4, times: 1 }),
        limits: { reopenMs: 5, checkpointMs: 3_600_000 },
      })
      const states: LogState[] = []
      log.onState((state) => states.push(state))
      const acked: number[] = []
      let failed = 0
      while (failed === 0)
        await log.append(stats(acked.length)).then(
          ({ idx }) => acked.push(idx),
          (error) => {
            expect(error.code).toBe('log.write')
            failed++
          },
        )
      expect(log.state).toBe('CLOSED_NEW')
      await expect(log.append(stats(0))).rejects.toMatchObject({ code: 'log.poisoned' })
      await inState(log, 'OK')
      const { idx } = await log.append(stats(99))
      expect(states).toEqual(['CLOSED_NEW', 'OK'])
      await log.close()
      expect(await verifyLog({ directory: log.directory, verifierKeys: vkeys })).toMatchObject({
        outcome: 'proven',
        uncovered: 0,
      })
      const kept = await codes(log)
      expect(kept).toContain('log.recovered')
      for (const each of [...acked, idx]) expect(kept[each]).toBe('session.stats')
    },
  )
  test('for good: the log drains', async () => {
    const log = await open(temporary(), {
      thread: failing({ kind: 'sync', at: 6, times: 1_000_000 }),
      limits: { reopenMs: 1, drainMs: 20, checkpointMs: 3_600_000 },
    })
    await log
      .append(stats(1))
      .then(() => log.append(stats(2)))
      .catch(() => undefined)
    await inState(log, 'DRAIN')
    await expect(log.append(stats(3))).rejects.toMatchObject({ code: 'log.poisoned' })
  })
  test('by losing the open segment: new sessions are closed out', async () => {
    const log = await open(temporary(), { limits: { watchMs: 5 } })
    const [name = ''] = readdirSync(join(log.directory, 'seg'))
    renameSync(join(log.directory, 'seg', name), join(log.directory, 'seg', 'away'))
    await inState(log, 'CLOSED_NEW')
  })
  test('by having too little room: new sessions are closed out', async () => {
    const log = await open(temporary(), {
      limits: { watchMs: 5, floorBytes: Number.MAX_SAFE_INTEGER },
    })
    await inState(log, 'CLOSED_NEW')
  })
})

/** A file system of 3 MiB, if this process may mount one (CAP_SYS_ADMIN is bit 21). */
function smallDisk(): string | null {
  if (process.platform !== 'linux') return null
  const status = readFileSync('/proc/self/status', 'utf8')
  if (!/^CapEff:\s*[0-9a-f]*[2367abef][0-9a-f]{5}$/m.test(status)) return null
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-full-'))
  const mounted =
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', directory]).status === 0
  afterAll(() => {
    if (mounted) spawnSync('umount', [directory])
    rmSync(directory, { recursive: true, force: true })
  })
  return mounted ? directory : null
}
const small = smallDisk()

test.skipIf(small === null)(
  'a disk that is really full: refused, nothing lost, and it goes on when there is room',
  async () => {
    const directory = small as string
    writeFileSync(join(directory, 'ballast'), Buffer.alloc(1024 * 1024))
    const log = await openLog(
      logOptions(join(directory, 'log'), {
        limits: { reopenMs: 5, floorBytes: 0, warnBytes: 0, checkpointMs: 3_600_000 },
      }),
    )
    const acked: number[] = []
    let refused = ''
    while (refused === '')
      await log.append(stats(acked.length, 'x'.repeat(900))).then(
        ({ idx }) => acked.push(idx),
        (error) => (refused = error.code),
      )
    expect(refused).toBe('log.write')
    rmSync(join(directory, 'ballast'))
    await until(
      () => log.state === 'OK',
      (listener) => log.onState(listener),
    )
    await log.append(stats(1))
    await log.close()
    const verdict = await verifyLog({ directory: log.directory, verifierKeys: vkeys })
    expect(verdict).toMatchObject({ outcome: 'proven' })
    expect(verdict.events).toBeGreaterThan(acked.length)
  },
)

test('closing is final, and says so in the log', async () => {
  const log = await open()
  await log.close()
  await expect(log.append(stats(1))).rejects.toMatchObject({ code: 'log.closed' })
  expect((await codes(log)).at(-1)).toBe('log.close')
  expect(log.signed.size).toBe(log.size)
})
