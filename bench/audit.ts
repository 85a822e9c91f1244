/** The audit log: durable appends beside a bare append and sync of the same run, verification, shipping. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLog, verifyLog, type AuditLog, type EventInput } from '#audit'
import { hasRsyslog, syslogRate } from './audit-syslog.ts'
import type { Bench, Row } from './row.ts'

const event: EventInput = {
  code: 'session.start',
  message: 'vera@vendor.test opened plc on press-07',
  status: 'success',
  actor: { uid: 'https://idp.test|vera', name: 'vera@vendor.test', party: 'vendor' },
  src: { ip: '192.0.2.7', port: 50_000 },
  device: 'press-07',
  process: 'plc',
  grant: 'g_01j00000000000000000000000',
  session: 's_01j00000000000000000000000',
  disposition: 'allowed',
}
/** The same facts without the forced checkpoint of a session's start. */
const plain: EventInput = { ...event, code: 'session.deny', reason: 'grant.expired' }

const signers = {
  ed25519: generateKeyPairSync('ed25519').privateKey,
  mlDsa44: generateKeyPairSync('ml-dsa-44').privateKey,
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
const median = (values: readonly number[]): number => percentile(values, 0.5)
function spread(values: readonly number[]): string {
  const middle = median(values)
  const widest = Math.max(...values.map((value) => Math.abs(value - middle)))
  return `±${((widest / middle) * 100).toFixed(0)} %`
}

async function withLog<T>(use: (log: AuditLog) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  const log = await openLog({
    directory,
    origin: 'sallyport.test/audit/bench/1',
    signers,
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
  })
  try {
    return await use(log)
  } finally {
    await log.close()
    rmSync(directory, { recursive: true })
  }
}

/** What this disk takes for one append of a kilobyte and its sync, alone: latencies in ms. */
function bareAppends(count: number): number[] {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  const fd = openSync(join(directory, 'bare'), 'w')
  const bytes = Buffer.alloc(1_024, 0x20)
  try {
    return Array.from({ length: count }, () => {
      const began = performance.now()
      writeSync(fd, bytes)
      fdatasyncSync(fd)
      return performance.now() - began
    })
  } finally {
    closeSync(fd)
    rmSync(directory, { recursive: true })
  }
}

interface Load {
  readonly perSecond: number
  readonly p99: number
  readonly cpuShare: number
}

/** `callers` that append one event after another for `ms`. */
async function closedLoop(log: AuditLog, callers: number, ms: number): Promise<Load> {
  const latencies: number[] = []
  const began = performance.now()
  const cpu = process.cpuUsage()
  const until = began + ms
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (performance.now() < until) {
        const at = performance.now()
        await log.append(plain)
        latencies.push(performance.now() - at)
      }
    }),
  )
  return load(latencies, began, cpu)
}

/** What openLoop appends to: the log, or nothing at all. */
type Target = Pick<AuditLog, 'append'>

/** Takes every event at once: what is left is the CPU of the load itself. */
const nothing: Target = {
  append: () => Promise.resolve({ idx: 0, uid: '', leaf: '' }),
}

/** Events arriving at `rate` a second for `ms`, however long the log takes for each. */
async function openLoop(log: Target, rate: number, ms: number): Promise<Load> {
  const latencies: number[] = []
  const began = performance.now()
  const cpu = process.cpuUsage()
  const pending: Promise<void>[] = []
  const total = Math.floor((rate * ms) / 1_000)
  for (let sent = 0; sent < total;) {
    const due = Math.min(total, Math.floor(((performance.now() - began) * rate) / 1_000))
    for (; sent < due; sent++) {
      const at = performance.now()
      pending.push(
        log.append(plain).then(() => {
          latencies.push(performance.now() - at)
        }),
      )
    }
    // An arrival process needs a clock: this is the load, not a wait for a result.
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  await Promise.all(pending)
  return load(latencies, began, cpu)
}

function load(latencies: readonly number[], began: number, cpu: NodeJS.CpuUsage): Load {
  const seconds = (performance.now() - began) / 1_000
  const used = process.cpuUsage(cpu)
  return {
    perSecond: latencies.length / seconds,
    p99: percentile(latencies, 0.99),
    cpuShare: (used.user + used.system) / 1_000_000 / seconds,
  }
}

async function fill(log: AuditLog, events: number): Promise<void> {
  for (let done = 0; done < events; done += 10_000)
    await Promise.all(Array.from({ length: 10_000 }, () => log.append(plain)))
  await log.checkpoint()
}

async function verifyRate(events: number): Promise<number> {
  return withLog(async (log) => {
    await fill(log, events)
    const began = performance.now()
    const verdict = await verifyLog({ directory: log.directory, verifierKeys: log.vkeys })
    if (verdict.outcome !== 'proven') throw new Error(`the log just written is ${verdict.outcome}`)
    return verdict.events / ((performance.now() - began) / 1_000)
  })
}

async function rows(quick: boolean): Promise<Row[]> {
  const [rounds, ms, verified] = quick ? [3, 2_000, 50_000] : [5, 10_000, 200_000]
  const bare: number[][] = []
  const single: Load[] = []
  const crowd: Load[] = []
  const steady: Load[] = []
  const verify: number[] = []
  const idle: Load[] = []
  const syslog: number[] = []
  for (let round = 0; round < rounds; round++) {
    bare.push(bareAppends(quick ? 300 : 1_000))
    single.push(await withLog((log) => closedLoop(log, 1, ms)))
    crowd.push(await withLog((log) => closedLoop(log, 1_024, ms)))
    idle.push(await openLoop(nothing, 10_000, ms))
    steady.push(
      await withLog(async (log) => {
        // Sustained: what the compiler does in the first second is not of it.
        await openLoop(log, 10_000, 1_000)
        return openLoop(log, 10_000, ms)
      }),
    )
    if (hasRsyslog)
      syslog.push(
        await withLog(async (log) => {
          await fill(log, quick ? 20_000 : 100_000)
          return syslogRate(log)
        }),
      )
    verify.push(await verifyRate(verified))
  }
  const bareP99 = bare.map((latencies) => percentile(latencies, 0.99))
  const bareRate = bare.map(
    (latencies) => 1_000 / (latencies.reduce((sum, value) => sum + value, 0) / latencies.length),
  )
  const row = (
    metric: string,
    values: readonly number[],
    unit: string,
    reference: string,
  ): Row => ({
    metric,
    value: median(values),
    unit,
    reference,
    spread: spread(values),
  })
  const bareText = `bare append + fdatasync: p99 ${median(bareP99).toFixed(2)} ms, ${median(bareRate).toFixed(0)}/s`
  return [
    row('bare_fdatasync_p99_ms', bareP99, 'ms', 'the disk itself, 1 KiB and a sync'),
    row(
      'durable_per_s_1',
      single.map((each) => each.perSecond),
      'events/s',
      bareText,
    ),
    row(
      'events_per_s_1024',
      crowd.map((each) => each.perSecond),
      'events/s',
      bareText,
    ),
    row(
      'durable_p99_ms_1024',
      crowd.map((each) => each.p99),
      'ms',
      bareText,
    ),
    row(
      'events_per_s_10k',
      steady.map((each) => each.perSecond),
      'events/s',
      '10,000 a second offered',
    ),
    row(
      'durable_p99_ms_10k',
      steady.map((each) => each.p99),
      'ms',
      bareText,
    ),
    row(
      'cpu_share_10k',
      steady.map((each, i) => each.cpuShare - (idle[i]?.cpuShare ?? 0)),
      'cores',
      `one core; all threads of the process, less the same load upon nothing (${median(idle.map((each) => each.cpuShare)).toFixed(3)})`,
    ),
    row(
      'p99_vs_bare_10k',
      steady.map((each, i) => each.p99 / (bareP99[i] ?? Number.NaN)),
      'x',
      'durable_p99_ms_10k over the p99 of a bare append + fdatasync of the same round',
    ),
    row(
      'verify_per_s',
      verify,
      'events/s',
      `a log of ${verified} events, both signatures of every checkpoint`,
    ),
    hasRsyslog
      ? row(
          'syslog_events_per_s',
          syslog,
          'events/s',
          'on the disk of a stock rsyslogd, mutual TLS',
        )
      : {
          metric: 'syslog_events_per_s',
          value: null,
          unit: 'events/s',
          reference: 'on the disk of a stock rsyslogd, mutual TLS',
          why: 'rsyslogd with its OpenSSL driver is not installed',
        },
  ]
}

export const bench: Bench = {
  name: 'audit',
  title: 'audit log: durable appends, and verifying them',
  run: ({ quick }) => rows(quick),
}
