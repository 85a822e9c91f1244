/** A disk that fills up: who is refused, who is not, and that every acknowledged event is there afterwards. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { openLog, readLog, verifyLog, type AuditLog, type EventInput, type LogState } from '#audit'
import { realDisk, type Disk } from '../../audit/disk.ts'
import { Ledger, promisedIn } from '../../audit/ledger.ts'
import { pack } from '../../audit/batch.ts'
import { purseOf, type Purse } from '../../audit/room.ts'
import { Reserve, spendOf } from '../../audit/reserve.ts'
import { Writer } from '../../audit/writer.ts'
import { identityEvent } from '../../gateway/events/identity.ts'
import { rounds } from '../support/patience.ts'
import { fillable } from './fillable.ts'
import {
  eventually,
  heads,
  logOptions,
  open,
  origin,
  signers,
  start,
  stats,
  temporary,
  vkeys,
} from './fixture.ts'

const MIB = 1024 * 1024
const end: EventInput = {
  code: 'session.end',
  message: 'ended',
  status: 'success',
  session: 's_1',
  reason: 'client_done',
  data: {},
}
const call = (party: 'staff' | 'vendor'): EventInput => ({
  code: 'admin.call',
  message: 'sessions:cut',
  status: 'success',
  actor: { uid: 'i|olga', party },
  data: { operation: 'session:cut', verb: 'update' },
})

const pruning = (party?: 'staff' | 'vendor'): EventInput => ({
  code: 'log.prune',
  message: 'x',
  status: 'success',
  ...(party === undefined ? {} : { actor: { uid: 'i|olga', party } }),
  data: { size: 1 },
})

const extended = (disposition: 'approved' | 'revoked'): EventInput => ({
  code: 'grant.extend',
  message: 'x',
  status: 'success',
  disposition,
  grant: 'g_1',
  data: { not_after: 1, max_seconds: 1, extension: 'g_2' },
})

const disabling = {
  code: 'account.change',
  at: 0,
  source: null,
  subject: 'i|v',
  by: 'i|olga',
  changes: { disabled: true },
} as const

describe('what an event may spend', () => {
  const rows: { name: string; event: EventInput; spend: string | null }[] = [
    { name: 'the end of a session', event: end, spend: 'closeout' },
    {
      name: 'the last part of its recording, without which that has no end',
      event: { code: 'recording.part', message: 'x', status: 'success', session: 's_1', data: {} },
      spend: 'closeout',
    },
    {
      name: 'a trial of a policy that ends by itself',
      event: { code: 'policy.rollback', message: 'x', status: 'success', data: { revision: 'r' } },
      spend: 'breakglass',
    },
    { name: 'a prune that is due', event: pruning(), spend: 'breakglass' },
    { name: 'a prune that staff ask for', event: pruning('staff'), spend: 'breakglass' },
    { name: 'a prune that a vendor would ask for', event: pruning('vendor'), spend: null },
    {
      name: 'the end of a vendor’s login',
      event: {
        code: 'auth.logout',
        message: 'x',
        status: 'success',
        actor: { uid: 'i|v', party: 'vendor' },
        data: {},
      },
      spend: 'closeout',
    },
    {
      name: 'staff that disable an account',
      event: identityEvent({ ...disabling, byParty: 'staff' }),
      spend: 'breakglass',
    },
    { name: 'a provider that changes one', event: identityEvent(disabling), spend: null },
    { name: 'a grant that lasts longer', event: extended('approved'), spend: null },
    { name: 'one that lasts no longer after all', event: extended('revoked'), spend: 'closeout' },
    { name: 'its start', event: start, spend: null },
    { name: 'its counts', event: stats(1), spend: null },
    { name: 'what staff do', event: call('staff'), spend: 'breakglass' },
    { name: 'what vendors do', event: call('vendor'), spend: null },
    {
      name: 'what staff without a role for it were refused',
      event: { ...call('staff'), status: 'failure' },
      spend: null,
    },
    {
      name: 'a finding that only a head of this log brings',
      event: {
        code: 'finding.witness_conflict',
        message: 'x',
        status: 'failure',
        data: { finding: 'f', title: 't' },
      },
      spend: 'closeout',
    },
    {
      name: 'a finding that anybody may cause',
      event: {
        code: 'finding.intrusion',
        message: 'x',
        status: 'failure',
        data: { finding: 'f', title: 't' },
      },
      spend: null,
    },
  ]
  test.for(rows)('$name: $spend', ({ event, spend }) => expect(spendOf(event)).toBe(spend))
})

describe('the files of the reserve', () => {
  const sizes = { closeoutBytes: 3 * MIB, breakglassBytes: 2 * MIB }
  const filled = (directory: string): Reserve => {
    const reserve = new Reserve(directory, realDisk, sizes)
    while (reserve.fill(() => 0) > 0);
    return reserve
  }
  test('are of real blocks, and of no more than was asked for', () => {
    const directory = temporary()
    const reserve = filled(directory)
    expect(reserve.missing).toBe(0)
    const { blocks, size } = statSync(join(directory, 'reserve', 'closeout.bin'))
    expect(size).toBe(3 * MIB)
    expect(blocks * 512).toBeGreaterThanOrEqual(size)
  })
  test('are given up bit by bit, ends first from their own', () => {
    const reserve = filled(temporary())
    expect(reserve.release('closeout', 100)).toBe(MIB)
    expect([reserve.left('closeout'), reserve.left('breakglass')]).toEqual([2 * MIB, 2 * MIB])
    expect(reserve.release('closeout', 3 * MIB)).toBe(3 * MIB)
    expect([reserve.left('closeout'), reserve.left('breakglass')]).toEqual([0, MIB])
    expect(reserve.release('breakglass', 1)).toBe(MIB)
    expect(reserve.release('breakglass', 1)).toBe(0)
    expect(reserve.release('closeout', 1)).toBe(0)
    expect(reserve.missing).toBe(5 * MIB)
  })
  test('operators never spend what ends are recorded with', () => {
    const reserve = filled(temporary())
    while (reserve.release('breakglass', 1) > 0);
    expect(reserve.left('closeout')).toBe(3 * MIB)
  })
  test('are not filled at the price of what was promised to others', () => {
    const disk: Disk = { ...realDisk, freeBytes: () => 10 * MIB }
    const reserve = { ...sizes, floorBytes: 2 * MIB }
    let promised = 6 * MIB
    const one = new Writer({
      directory: temporary(),
      origin,
      signers,
      disk,
      segmentBytes: MIB,
      reserve,
      promised: () => promised,
    })
    one.open()
    expect(one.watch().reserve.missing).toBe(5 * MIB)
    promised = 5 * MIB
    expect(one.watch().reserve.missing).toBe(2 * MIB)
    one.close()
  })
  test('are not filled at the price of what is promised while they are', () => {
    let promised = 0
    const disk: Disk = {
      ...realDisk,
      freeBytes: () => 10 * MIB,
      pwrite: (...given) => {
        promised = 9 * MIB
        return realDisk.pwrite(...given)
      },
    }
    const reserve = new Reserve(temporary(), disk, sizes)
    expect(reserve.fill(() => promised)).toBe(MIB)
    expect(reserve.left('closeout')).toBe(MIB)
  })
  test('are not filled at the price of the floor', () => {
    const disk: Disk = { ...realDisk, freeBytes: () => 10 * MIB }
    const reserve = new Reserve(temporary(), disk, sizes)
    expect(reserve.fill(() => 8 * MIB)).toBe(0)
    expect(reserve.fill(() => 7 * MIB)).toBe(3 * MIB)
  })
})

describe('the purse of a batch', () => {
  const of = (...spends: ('closeout' | 'breakglass' | null)[]): Purse =>
    purseOf(spends.map((spend) => ({ spend })))
  test.for([
    ['ends alone', of('closeout', 'closeout'), 'closeout'],
    ['operators alone', of('breakglass'), 'breakglass'],
    ['both', of('closeout', 'breakglass', 'closeout'), 'mixed'],
    ['both the other way round', of('breakglass', 'closeout'), 'mixed'],
    ['one that nothing pays for', of('closeout', 'breakglass', null), null],
  ] as const)('%s', ([, purse, expected]) => expect(purse).toBe(expected))
})

/** A writer on a disk of so many bytes, its reserve filled and the rest taken by others. */
function nearlyFull(kept: { closeoutBytes: number; breakglassBytes: number }) {
  const directory = temporary()
  let others = 0
  const used = (): number =>
    readdirSync(directory, { recursive: true, encoding: 'utf8' })
      .map((name) => statSync(join(directory, name)))
      .reduce((sum, found) => sum + (found.isFile() ? found.size : 0), 0)
  let [capacity, failing] = [Number.MAX_SAFE_INTEGER, 0]
  const disk: Disk = {
    ...realDisk,
    freeBytes: () => Math.max(0, capacity - used() - others),
    pwrite: (fd, bytes, position) => {
      if (failing-- > 0) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
      return realDisk.pwrite(fd, bytes, position)
    },
  }
  const reserve = { ...kept, floorBytes: 4 * MIB }
  const one = new Writer({ directory, origin, signers, disk, segmentBytes: 64 * MIB, reserve })
  one.open()
  for (const _ of rounds('the reserve is whole')) if (one.watch().reserve.missing === 0) break
  capacity = used() + 1024
  return {
    one,
    left: () => one.watch().reserve,
    write: (purse: Purse, n = 1) =>
      one.appendWithin(
        pack(
          heads(n).map((head) => ({ head, bytes: Buffer.byteLength(head) + 18 })),
          one.size,
        ),
        purse,
      ).first,
    /** The next `n` writes find no room, whatever was free a moment before. */
    fail: (n: number) => {
      ;[capacity, failing] = [Number.MAX_SAFE_INTEGER, n]
    },
    take: (bytes: number) => (others += bytes),
  }
}

describe('what one file of the reserve gave up', () => {
  const kept = { closeoutBytes: 3 * MIB, breakglassBytes: 3 * MIB }
  test('is for its own events, and for nothing that came beside them', () => {
    const disk = nearlyFull(kept)
    expect(disk.write('closeout')).toBe(0)
    expect(disk.left()).toMatchObject({ closeout: 2 * MIB, breakglass: 3 * MIB })
    // Almost a MiB is free now, and it is the ends'.
    expect(() => disk.write(null)).toThrow(/free on the disk/)
    expect(disk.one.watch().freeBytes).toBeLessThan(2 * 1024)
    expect(disk.write('breakglass')).toBe(1)
    expect(disk.left()).toMatchObject({ closeout: 2 * MIB, breakglass: 2 * MIB })
    expect(disk.write('closeout', 100)).toBe(2)
    expect(disk.write('breakglass', 100)).toBe(102)
    expect(disk.left()).toMatchObject({ closeout: 2 * MIB, breakglass: 2 * MIB })
    disk.one.close()
  })
  test('pays for no batch that is of both', () => {
    const disk = nearlyFull(kept)
    expect(() => disk.write('mixed')).toThrow(/free on the disk/)
    expect(disk.left()).toMatchObject({ closeout: 3 * MIB, breakglass: 3 * MIB })
    disk.one.close()
  })
  test('is given up anew where another program took it', () => {
    const disk = nearlyFull(kept)
    disk.write('closeout')
    disk.take(MIB)
    expect(disk.write('closeout')).toBe(1)
    expect(disk.write('breakglass')).toBe(2)
    disk.one.close()
  })
})

test('a disk that fills under a write refuses what nothing pays for, and the log goes on', () => {
  const disk = nearlyFull({ closeoutBytes: MIB, breakglassBytes: MIB })
  disk.fail(1)
  expect(() => disk.write(null)).toThrow(/free on the disk/)
  expect(disk.write(null)).toBe(0)
  disk.fail(1)
  expect(disk.write('closeout')).toBe(1)
  disk.fail(1)
  expect(() => disk.write('mixed')).toThrow(/free on the disk/)
  expect(disk.write('mixed')).toBe(2)
  disk.one.close()
})

describe('room for one more', () => {
  test('is counted once: what is written of it is neither promised nor free', () => {
    const ledger = new Ledger()
    ledger.look({ freeBytes: 100, reserve: { closeout: 0, breakglass: 0, missing: 0 } })
    const one = ledger.admit(60, 10)
    expect(() => ledger.admit(31, 10)).toThrow(/no room/)
    one.used(50)
    expect(ledger.room).toMatchObject({ freeBytes: 50, reservedBytes: 10 })
    expect(() => ledger.admit(31, 10)).toThrow(/no room/)
    // More than it was promised takes from what is free, and from nobody's promise.
    one.used(20)
    expect(ledger.room).toMatchObject({ freeBytes: 30, reservedBytes: 0 })
    one.release()
    expect(ledger.room.reservedBytes).toBe(0)
    ledger.admit(20, 10)
    expect(() => ledger.admit(1, 10)).toThrow(/no room/)
  })
  test('is not what the reserve still lacks, or that could never be kept back', () => {
    const ledger = new Ledger()
    ledger.look({ freeBytes: 100, reserve: { closeout: 0, breakglass: 10, missing: 60 } })
    expect(() => ledger.admit(31, 10)).toThrow(/no room/)
    ledger.admit(30, 10)
    // Filled by a step: as much less is free, and as much less is missing.
    ledger.look({ freeBytes: 60, reserve: { closeout: 20, breakglass: 30, missing: 20 } })
    expect(() => ledger.admit(1, 10)).toThrow(/no room/)
    ledger.admit(0, 10)
  })
  test('is not what was written while the disk was looked at', () => {
    const ledger = new Ledger()
    ledger.look({ freeBytes: 100, reserve: { closeout: 0, breakglass: 0, missing: 0 } })
    const one = ledger.admit(60, 0)
    one.used(10)
    ledger.asked()
    one.used(20)
    ledger.look({ freeBytes: 90, reserve: { closeout: 0, breakglass: 0, missing: 0 } })
    expect(ledger.room).toMatchObject({ freeBytes: 70, reservedBytes: 30 })
    expect(promisedIn(ledger.shared)()).toBe(30)
  })
  test('is looked for before the first session could ask', async () => {
    const log = await open(temporary())
    expect(log.room.freeBytes).not.toBeNull()
  })
  test('is promised until it is given back, and not twice', async () => {
    const log = await open(temporary(), { limits: { watchMs: 5, floorBytes: MIB } })
    await eventually(() => log.room.reserve?.missing === 0)
    const free = log.room.freeBytes ?? 0
    const half = log.admit(Math.floor(free * 0.6))
    expect(() => log.admit(Math.floor(free * 0.6))).toThrow(/no room/)
    half.release()
    half.release()
    expect(log.room.reservedBytes).toBe(0)
    log.admit(Math.floor(free * 0.6)).release()
  })
  test('is not there where new sessions are closed out', async () => {
    const log = await open(temporary(), {
      limits: { watchMs: 5, floorBytes: Number.MAX_SAFE_INTEGER },
    })
    await eventually(() => log.state === 'CLOSED_NEW')
    expect(() => log.admit(1)).toThrow(/no room/)
  })
})

test('the state says early that room is short, and each change is an event', async () => {
  const log = await open(temporary(), {
    limits: { watchMs: 5, floorBytes: 0, warnBytes: Number.MAX_SAFE_INTEGER },
  })
  await eventually(() => log.state === 'WARN')
  await log.checkpoint()
  const said = [...readLog(log.directory, origin)].map(({ body }) => Buffer.from(body).toString())
  expect(said.filter((text) => text.includes('"log.state"'))).toHaveLength(1)
})

test('where what operators have is spent, ends are recorded still, also those behind what was refused', async () => {
  const directory = temporary()
  const disk = fillable(directory)
  const kept = { closeoutBytes: 8 * MIB, breakglassBytes: 2 * MIB }
  const log = await open(join(directory, 'log'), {
    thread: disk.thread,
    limits: { ...kept, floorBytes: MIB, warnBytes: MIB, watchMs: 5, checkpointMs: 600_000 },
  })
  await eventually(() => log.room.reserve?.missing === 0)
  const states: LogState[] = []
  log.onState((state) => states.push(state))
  disk.fill()
  await eventually(() => log.state === 'CLOSED_NEW')
  while ((await codeOf(log.append(call('staff')))) === 'taken');
  // Whether they are in one batch or the second comes while the first is on its way, and a head over both is wanted.
  const refused = [codeOf(log.append(call('staff')))]
  const ended = [codeOf(log.append(end))]
  await Promise.resolve()
  await Promise.resolve()
  refused.push(codeOf(log.append(call('staff'))))
  ended.push(codeOf(log.append(end)))
  const head = log.checkpoint()
  expect(await Promise.all(refused)).toEqual(['log.full', 'log.full'])
  expect(await Promise.all(ended)).toEqual(['taken', 'taken'])
  expect((await head).size).toBe(log.size)
  expect(states).toEqual(['CLOSED_NEW'])
})

test('is looked at while so many write that something always waits', async () => {
  const log = await open(temporary(), { limits: { watchMs: 5 } })
  let [looks, written, seen] = [0, 0, log.room]
  const caller = async (): Promise<void> => {
    while (looks < 5 && written < 30_000) {
      await log.append(stats(written++))
      if (log.room !== seen) looks++
      seen = log.room
    }
  }
  await Promise.all(Array.from({ length: 300 }, caller))
  expect(looks).toBeGreaterThanOrEqual(5)
})

/** A file system of 8 MiB, if this process may mount one (CAP_SYS_ADMIN is bit 21). */
function smallDisk(): string | null {
  const status = process.platform === 'linux' ? readFileSync('/proc/self/status', 'utf8') : ''
  if (!/^CapEff:\s*[0-9a-f]*[2367abef][0-9a-f]{5}$/m.test(status)) return null
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-reserve-'))
  const mounted =
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory]).status === 0
  afterAll(() => {
    if (mounted) spawnSync('umount', ['--lazy', directory])
    rmSync(directory, { recursive: true, force: true })
  })
  return mounted ? directory : null
}
const small = smallDisk()

const codeOf = (appended: Promise<unknown>): Promise<string> =>
  appended.then(
    () => 'taken',
    (error: unknown) => (error as { code: string }).code,
  )

test.skipIf(small === null)(
  'on a disk that is really full (needs a tmpfs to fill) ends and operators are recorded, and the log closes in order',
  async () => {
    const directory = small as string
    const kept = { closeoutBytes: MIB, breakglassBytes: MIB }
    const limits = { ...kept, floorBytes: 2 * MIB, warnBytes: 4 * MIB, watchMs: 5 }
    const options = logOptions(join(directory, 'log'), { limits })
    const log: AuditLog = await openLog(options)
    const states: LogState[] = []
    log.onState((state) => states.push(state))
    await eventually(() => log.room.reserve?.missing === 0)
    const acked: number[] = []
    let refused = ''
    const one = (): Promise<unknown> =>
      log.append(stats(acked.length, 'x'.repeat(900))).then(
        ({ idx }) => acked.push(idx),
        (error: unknown) => (refused = (error as { code: string }).code),
      )
    while (refused === '') await Promise.all(Array.from({ length: 32 }, one))
    expect(refused).toBe('log.full')
    expect(states).toEqual(['WARN', 'CLOSED_NEW'])
    expect(() => log.admit(1)).toThrow(/no room/)
    // Another program takes the last byte.
    let ballast = 0
    try {
      for (; ; ballast++) writeFileSync(join(directory, `ballast-${ballast}`), Buffer.alloc(4096))
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' })
    }
    for (let n = 0; n < 100; n++) {
      const { idx } = await log.append({ ...end, session: `s_${n}` })
      acked.push(idx)
    }
    expect(await codeOf(log.append(call('staff')))).toBe('taken')
    expect(await codeOf(log.append(call('vendor')))).toBe('log.full')
    expect(await codeOf(log.append(start))).toBe('log.full')
    await eventually(() => (log.room.reserve?.missing ?? 0) > 0)
    await log.checkpoint()
    await log.close()
    // Whoever restarts it on the full disk is not locked out either.
    const again = await openLog(options)
    expect(await codeOf(again.append(call('staff')))).toBe('taken')
    await again.close()
    const verdict = await verifyLog({ directory: log.directory, verifierKeys: vkeys })
    expect(verdict).toMatchObject({ outcome: 'proven', uncovered: 0 })
    const last = [...readLog(log.directory, origin)].map(({ body }) => Buffer.from(body).toString())
    expect(acked.every((idx) => idx < last.length)).toBe(true)
    expect(last.filter((text) => text.includes('"log.close"'))).toHaveLength(2)
    expect(last.filter((text) => text.includes('"log.recovered"'))).toEqual([])
    // With room again everything goes on, and what was spent is kept back anew.
    for (let n = 0; n <= ballast; n++) rmSync(join(directory, `ballast-${n}`), { force: true })
    spawnSync('mount', ['-o', 'remount,size=24m', directory])
    const mended = await openLog(options)
    await eventually(() => mended.room.reserve?.missing === 0 && mended.state === 'OK')
    expect(await codeOf(mended.append(stats(1)))).toBe('taken')
    mended.admit(MIB).release()
    await mended.close()
  },
)
