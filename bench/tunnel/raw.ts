/** The tunnel layer alone, asked by the bench: opens, idle streams, and one stream over a long line. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { defaultLimits } from '#mux'
import type { Row } from '../row.ts'
import type { Certificate } from './hop.ts'
import type { Layer } from './layer.ts'
import type { Link } from './link.ts'
import { found } from './program.ts'
import { Remote } from './rpc.ts'
import { ratios, row } from './rows.ts'

const program = (name: string) => join(import.meta.dirname, name)
const startLayer = (under: readonly string[] = []) =>
  new Remote<Layer>(program('layer.ts'), ['--expose-gc'], under)

export interface RawPlan {
  readonly rounds: number
  readonly ms: number
}

const MiB = 1024 * 1024
const AT_ONCE = 128
const IDLE_STREAMS = 4000

/** `opens_vs_http2` and `bytes_per_idle_stream`. */
export async function measureLayer(certificate: Certificate, plan: RawPlan): Promise<Row[]> {
  await using layer = startLayer()
  const port = await layer.call('listen', certificate)
  const opens: number[] = []
  const requests: number[] = []
  const idle: number[] = []
  const ask = { ms: plan.ms, atOnce: AT_ONCE }
  await layer.call('opens', { ...ask, port })
  await layer.call('requests', ask)
  for (let round = 0; round < plan.rounds; round++) {
    opens.push(await layer.call('opens', { ...ask, port }))
    requests.push(await layer.call('requests', ask))
    idle.push(await layer.call('idle', { port, streams: IDLE_STREAMS }))
  }
  const each = 'opened, accepted and ended both ways, 128 at once, both ends in one process'
  return [
    row(
      { metric: 'opens_vs_http2', unit: 'x', reference: `node:http2 requests, same; bar ≥ 3` },
      ratios(opens, requests),
      '',
    ),
    row({ metric: 'opens_per_second_sallyport', unit: 'streams/s', reference: each }, opens, ''),
    row({ metric: 'opens_per_second_http2', unit: 'streams/s', reference: each }, requests, ''),
    row(
      {
        metric: 'bytes_per_idle_stream',
        unit: 'B',
        reference: `heap and buffers of one end, ${IDLE_STREAMS} streams over TLS; bar ≤ 1 024`,
      },
      idle,
      '',
    ),
  ]
}

const READERS = 16
const STALLED = 1000

/** A thousand readers that take nothing: whether the others keep their rate, and what they make both ends hold. */
export async function measureStall(certificate: Certificate, plan: RawPlan): Promise<Row[]> {
  await using layer = startLayer()
  const port = await layer.call('listen', certificate)
  const grown = await layer.call('stall', { port, readers: READERS, stalled: STALLED })
  const [alone, beside]: [number[], number[]] = [[], []]
  let gone = 0
  for (let round = 0; round < plan.rounds; round++) {
    alone.push((await layer.call('crowd', { which: 'alone', ms: plan.ms })).rate)
    const { rate, lost } = await layer.call('crowd', { which: 'beside', ms: plan.ms })
    beside.push(rate)
    gone = lost
  }
  const budget = defaultLimits.receiveMemory / MiB
  const of = `${STALLED} stalled streams (${gone} of them cut)`
  return [
    row(
      {
        metric: 'stalled_readers_rate',
        unit: 'x',
        reference: `${READERS} readers beside ${of} of one tunnel, over ${READERS} of another, core to core over TLS; bar ≥ 0.9`,
      },
      ratios(beside, alone),
      '',
    ),
    row(
      {
        metric: 'stalled_readers_mib',
        unit: 'MiB',
        reference: `what both ends grow by for ${of}, less what waits at the sender; bar ≤ ${budget}, what a tunnel may hold received and not consumed`,
      },
      [grown / MiB],
      '',
    ),
  ]
}

/** A line between the two ends. */
export interface Condition {
  readonly rttMs: number
  /** Percent of packets. */
  readonly loss: number
}

/** How a condition is made on this machine, or why it cannot be. */
export type Means =
  | { readonly how: 'netem' }
  | { readonly how: 'link' }
  | { readonly how: 'none'; readonly why: string }

/**
 * What the delay link carries: with 100 ms of round trip 6.25 MB are on their way, which is what Linux
 * lets one TCP connection have in flight (tcp_rmem), and a kernel's own long line would show.
 */
export const LINK_BYTES_PER_SECOND = 62_500_000

/** In a network of its own whose loopback delays and loses: `tc` is run first, then the program. */
function netem({ rttMs, loss }: Condition): string[] {
  const rule = `delay ${rttMs / 2}ms ${loss > 0 ? `loss ${loss}% ` : ''}limit 200000`
  const script = `ip link set lo up mtu 1500 && tc qdisc add dev lo root netem ${rule} && exec "$@"`
  return ['unshare', '-n', 'sh', '-c', script, 'sh']
}

/** Asks the kernel; what it says is the reason where it says no. */
export async function meansFor(condition: Condition): Promise<Means> {
  const why = await refusal(condition)
  if (why === undefined) return { how: 'netem' }
  return condition.loss === 0 ? { how: 'link' } : { how: 'none', why: `no netem here: ${why}` }
}

async function refusal(condition: Condition): Promise<string | undefined> {
  const missing = ['unshare', 'ip', 'tc'].filter((name) => found(name) === undefined)
  if (missing.length > 0) return `${missing.join(', ')} not installed`
  const [command = '', ...args] = netem(condition)
  try {
    await promisify(execFile)(command, [...args, 'true'])
    return undefined
  } catch (error) {
    const said = (error as { stderr?: string }).stderr ?? String(error)
    return said.trim().split('\n')[0] ?? 'refused'
  }
}

export interface LineCondition extends Condition {
  readonly metric: string
  readonly bar: string
  /** Of the delay link, where it is not the usual one. */
  readonly bytesPerSecond?: number
}

/** The issue's bar first. */
export const CONDITIONS: readonly LineCondition[] = [
  { metric: 'rtt100_vs_tls', rttMs: 100, loss: 0, bar: '; bar ≥ 0.9' },
  { metric: 'rtt20_vs_tls', rttMs: 20, loss: 0, bar: '' },
  { metric: 'rtt100_1gbit_vs_tls', rttMs: 100, loss: 0, bar: '', bytesPerSecond: 125_000_000 },
  { metric: 'rtt20_loss0.1_vs_tls', rttMs: 20, loss: 0.1, bar: '' },
  { metric: 'rtt20_loss1_vs_tls', rttMs: 20, loss: 1, bar: '' },
  { metric: 'rtt100_loss0.1_vs_tls', rttMs: 100, loss: 0.1, bar: '' },
  { metric: 'rtt100_loss1_vs_tls', rttMs: 100, loss: 1, bar: '' },
]

/** How long a connection has before its rate counts. */
const SETTLE_MS = 3000

/** One stream over a long line beside a plain TLS connection over another one like it. */
export async function measureLine(
  certificate: Certificate,
  condition: LineCondition,
  plan: RawPlan,
): Promise<Row> {
  const { metric, rttMs, loss, bar, bytesPerSecond = LINK_BYTES_PER_SECOND } = condition
  const means = await meansFor(condition)
  const by =
    means.how === 'link'
      ? `delay link of ${(bytesPerSecond / 125e6).toFixed(1)} Gbit/s in user space`
      : 'netem'
  const of = `one stream after 3 s, core to core, against plain TLS, ${rttMs} ms RTT`
  const asked = { metric, unit: 'x', reference: `${of}, ${loss} % loss (${by})${bar}` }
  if (means.how === 'none') return row(asked, [], means.why)
  await using layer = startLayer(means.how === 'netem' ? netem(condition) : [])
  const port = await layer.call('listen', certificate)
  await using link = new Remote<Link>(program('link.ts'))
  const through =
    means.how === 'netem' ? port : await link.call('open', { port, rttMs, bytesPerSecond })
  await layer.call('dial', through)
  await layer.call('start', undefined)
  await new Promise((wake) => setTimeout(wake, SETTLE_MS))
  const [ours, theirs]: [number[], number[]] = [[], []]
  for (let round = 0; round < plan.rounds; round++) {
    // Each has a line of its own: neither takes from the other, and both have sent since the start.
    const { tunnel, tls } = await layer.call('rates', 2 * plan.ms)
    ours.push(tunnel)
    theirs.push(tls)
  }
  await layer.call('hangUp', undefined)
  const said = (theirs.reduce((sum, one) => sum + one, 0) / theirs.length / 1e6).toFixed(0)
  return row(
    { ...asked, reference: `${asked.reference}; TLS ${said} MB/s` },
    ratios(ours, theirs),
    '',
  )
}
