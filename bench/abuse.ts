/**
 * What bystanders notice while somebody abuses the gateway: a vendor's session carries a steady load
 * and asks small questions, first undisturbed, then beside each attacker in turn.
 */
import { attacks, type Attack } from '../test/support/abuse.ts'
import { besieged, type Besieged } from '../test/support/besieged.ts'
import type { Line } from '../test/support/tunnels.ts'
import type { Bench, Row } from './row.ts'

/** The strict answer of a policy that says nothing of bandwidth would be what is measured. */
const limits = new URL('tunnel/limits.ts', import.meta.url).href
/** The steady load: 64 KiB each 2 ms. */
const PIECE = Buffer.alloc(65_536, 1)
const EVERY_MS = 2
const ASK_EVERY_MS = 5
const SETTLE_MS = 300

interface Reading {
  /** MB/s that arrived at the device. */
  readonly rate: number
  /** Medians and 99th percentiles of round trips in ms. */
  readonly p50: number
  readonly p99: number
  /** Share of one core that the gateway used. */
  readonly cpu: number
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

async function watch(
  siege: Besieged,
  bulk: Line,
  small: Line,
  arrived: () => number,
  ms: number,
): Promise<Reading> {
  const trips: number[] = []
  let open = true
  let stalled = false
  bulk.stream.onDrain = () => (stalled = false)
  const load = setInterval(() => {
    if (!stalled) stalled = !bulk.write(PIECE)
  }, EVERY_MS)
  const asking = (async () => {
    while (open) {
      const before = small.total
      const at = performance.now()
      small.write('question')
      while (small.total === before) await new Promise((resolve) => setImmediate(resolve))
      trips.push(performance.now() - at)
      await pause(ASK_EVERY_MS)
    }
  })()
  const [from, began, cpu] = [arrived(), performance.now(), siege.cpu()]
  await pause(ms)
  const seconds = (performance.now() - began) / 1000
  const got = arrived() - from
  const used = siege.cpu() - cpu
  open = false
  clearInterval(load)
  await asking
  const sorted = trips.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
  return { rate: got / 1e6 / seconds, p50: at(0.5), p99: at(0.99), cpu: used / seconds }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

interface Rounds {
  readonly quiet: Reading[]
  readonly beside: Reading[]
}

async function measure(quick: boolean): Promise<Map<Attack, Rounds>> {
  await using siege = await besieged({ preload: limits })
  let arrived = 0
  siege.agent.target = (stream) => {
    // Bulk ends here; questions are answered.
    stream.onData = (chunk) => {
      if (chunk.length < 100) stream.write(chunk)
      arrived += chunk.length
      stream.consumed(chunk.length)
    }
  }
  const bulk = await siege.client.line(siege.session, { keep: false })
  const small = await siege.client.line(siege.session, { keep: false })
  const [rounds, ms] = quick ? [1, 500] : [5, 1500]
  const found = new Map<Attack, Rounds>(
    attacks.map((attack) => [attack, { quiet: [], beside: [] }]),
  )
  await watch(siege, bulk, small, () => arrived, 1000)
  for (let round = 0; round < rounds; round++)
    for (const [attack, { quiet, beside }] of found) {
      quiet.push(await watch(siege, bulk, small, () => arrived, ms))
      await using _attacking = await siege.attack(attack)
      await pause(SETTLE_MS)
      beside.push(await watch(siege, bulk, small, () => arrived, ms))
    }
  return found
}

const most = (readings: readonly Reading[], of: (reading: Reading) => number) =>
  median(readings.map(of))

function rowsOf(attack: Attack, { quiet, beside }: Rounds): Row[] {
  const pairs = quiet.map((one, at) => ({ one, two: beside[at] ?? one }))
  const ratio = (of: (reading: Reading) => number) =>
    median(pairs.map(({ one, two }) => of(two) / of(one)))
  const name = `${attack.who}: ${attack.name}`
  return [
    {
      metric: `rate beside ${name}`,
      value: ratio(({ rate }) => rate),
      unit: 'x',
      reference: `the same session undisturbed, ${most(quiet, ({ rate }) => rate).toFixed(1)} MB/s; at least 0.8`,
      spread: `gateway CPU ${most(quiet, ({ cpu }) => cpu).toFixed(2)} to ${most(beside, ({ cpu }) => cpu).toFixed(2)}`,
    },
    {
      metric: `round trip beside ${name}`,
      value: ratio(({ p50 }) => p50),
      unit: 'x',
      reference: `the same session undisturbed, p50 ${most(quiet, ({ p50 }) => p50).toFixed(2)} ms; at most 1.2`,
      spread: `p99 ${most(quiet, ({ p99 }) => p99).toFixed(1)} to ${most(beside, ({ p99 }) => p99).toFixed(1)} ms`,
    },
  ]
}

export const bench: Bench = {
  name: 'abuse',
  title: 'a session beside attackers, as ratios to itself undisturbed in the same run',
  async run({ quick }) {
    const found = await measure(quick)
    return [...found].flatMap(([attack, rounds]) => rowsOf(attack, rounds))
  },
}
