/**
 * What bystanders notice while somebody abuses the gateway: a vendor's tunnel carries a steady load and
 * another asks small questions, first undisturbed, then beside each attacker in turn. Attackers run on
 * what nobody else wants of the processors: what their own work would cost a machine is not the gateway's.
 */
import { spawnSync } from 'node:child_process'
import { attacks, type Attack } from '../test/support/abuse.ts'
import { besieged, type Attacking, type Besieged } from '../test/support/besieged.ts'
import { Client, type Line } from '../test/support/tunnels.ts'
import type { Bench, Row } from './row.ts'

/** The strict answer of a policy that says nothing of bandwidth would be what is measured. */
const limits = new URL('tunnel/limits.ts', import.meta.url).href
/** The steady load: 64 KiB each 2 ms. More would leave the attackers no processor to attack from. */
const PIECE = Buffer.alloc(65_536, 1)
const EVERY_MS = 2
/** Between an answer and the next question, in turn: no multiple of the load's turns. */
const ASK_AFTER_MS = [2, 3, 5, 7]
const SETTLE_MS = 300
/** Between two rounds of the same attacker: by then every allowance of theirs is whole again, and the first second is one. */
const REST_MS = 17_000

interface Reading {
  /** MB/s that arrived at the device. */
  readonly rate: number
  /** Medians and 99th percentiles of round trips in ms. */
  readonly p50: number
  readonly p99: number
  /** Share of one core that the gateway's first thread used, which carries every tunnel. */
  readonly cpu: number
  /** And that of the attackers. */
  readonly theirs: number
}

/** The bystanders: who carries the load, who asks, and what has arrived. */
interface Bystanders {
  readonly siege: Besieged
  readonly bulk: Line
  readonly small: Line
  readonly arrived: () => number
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

async function watch(
  { siege, bulk, small, arrived }: Bystanders,
  ms: number,
  attacking?: Attacking,
): Promise<Reading> {
  const spent = () => [siege.cpu(), attacking?.cpu() ?? 0] as const
  const trips: number[] = []
  let open = true
  let stalled = false
  bulk.stream.onDrain = () => (stalled = false)
  const load = setInterval(() => {
    if (!stalled) stalled = !bulk.write(PIECE)
  }, EVERY_MS)
  const asking = (async () => {
    while (open) {
      const answer = Promise.withResolvers<void>()
      small.stream.onData = (chunk) => {
        small.stream.consumed(chunk.length)
        answer.resolve()
      }
      const at = performance.now()
      small.write('question')
      await answer.promise
      trips.push(performance.now() - at)
      await pause(ASK_AFTER_MS[trips.length % ASK_AFTER_MS.length] ?? 0)
    }
  })()
  const [from, began, [ours, theirs]] = [arrived(), performance.now(), spent()]
  await pause(ms)
  const seconds = (performance.now() - began) / 1000
  const got = arrived() - from
  const used = spent()
  open = false
  clearInterval(load)
  await asking
  const sorted = trips.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
  return {
    rate: got / 1e6 / seconds,
    p50: at(0.5),
    p99: at(0.99),
    cpu: (used[0] - ours) / seconds,
    theirs: (used[1] - theirs) / seconds,
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

interface Rounds {
  readonly quiet: Reading[]
  readonly beside: Reading[]
}

async function measure(quick: boolean, chosen: readonly Attack[]): Promise<Map<Attack, Rounds>> {
  await using siege = await besieged({ preload: limits, idle: true })
  let arrived = 0
  siege.agent.target = (stream) => {
    // Bulk ends here; questions are answered.
    stream.onData = (chunk) => {
      if (chunk.length < 100) stream.write(chunk)
      arrived += chunk.length
      stream.consumed(chunk.length)
    }
  }
  await using asker = await Client.dial(siege.node)
  const bulk = await siege.client.line(siege.session, { keep: false })
  const small = await asker.line(siege.session, { keep: false })
  const bystanders: Bystanders = { siege, bulk, small, arrived: () => arrived }
  const [rounds, ms] = quick ? [1, 500] : [5, 1500]
  const found = new Map<Attack, Rounds>(chosen.map((attack) => [attack, { quiet: [], beside: [] }]))
  const ended = new Map<Attack, number>()
  await watch(bystanders, 1000)
  for (let round = 0; round < rounds; round++)
    for (const [attack, { quiet, beside }] of found) {
      await pause(Math.max(0, (ended.get(attack) ?? -Infinity) + REST_MS - performance.now()))
      quiet.push(await watch(bystanders, ms))
      await using attacking = await siege.attack(attack)
      await pause(SETTLE_MS)
      beside.push(await watch(bystanders, ms, attacking))
      ended.set(attack, performance.now())
    }
  return found
}

const most = (readings: readonly Reading[], of: (reading: Reading) => number) =>
  median(readings.map(of))

/** Of each attack three rows: what a session keeps of its rate, how much later it is answered, what the gateway spends. */
function rowsOf(attack: Attack, { quiet, beside }: Rounds): Row[] {
  const pairs = quiet.map((one, at) => ({ one, two: beside[at] ?? one }))
  const from = (values: readonly number[]) => ({
    value: median(values),
    spread: `${Math.min(...values).toFixed(2)} – ${Math.max(...values).toFixed(2)}`,
  })
  const ratio = (of: (reading: Reading) => number) =>
    from(pairs.map(({ one, two }) => of(two) / of(one)))
  const name = `${attack.who}: ${attack.name}`
  const [rate, p50, p99, cpu] = (['rate', 'p50', 'p99', 'cpu'] as const).map((key) => ({
    quiet: most(quiet, (reading) => reading[key]),
    beside: most(beside, (reading) => reading[key]),
  })) as [Pair, Pair, Pair, Pair]
  return [
    {
      metric: `rate beside ${name}`,
      ...ratio((reading) => reading.rate),
      unit: 'x',
      reference: `the same session undisturbed, ${rate.quiet.toFixed(1)} MB/s; at least 0.8`,
    },
    {
      metric: `round trip beside ${name}`,
      ...ratio((reading) => reading.p50),
      unit: 'x',
      reference: `the same session undisturbed, p50 ${p50.quiet.toFixed(2)} ms; at most 1.2; p99 ${p99.quiet.toFixed(1)} to ${p99.beside.toFixed(1)} ms`,
    },
    {
      metric: `core spent on ${name}`,
      ...from(pairs.map(({ one, two }) => two.cpu - one.cpu)),
      unit: 'core',
      reference: `of the thread that carries every tunnel, beside the ${cpu.quiet.toFixed(2)} of the load; attackers had ${most(beside, ({ theirs }) => theirs).toFixed(2)}; at most 0.2`,
    },
  ]
}

interface Pair {
  readonly quiet: number
  readonly beside: number
}

export const bench: Bench = {
  name: 'abuse',
  title: 'a session beside attackers, as ratios to itself undisturbed in the same run',
  async run({ quick, only = [] }) {
    const chrt = spawnSync('chrt', ['--version'])
    if (chrt.error !== undefined) throw new Error('chrt is needed: apt-get install util-linux')
    const chosen = attacks.filter(
      ({ name }) => only.length === 0 || only.some((part) => name.includes(part)),
    )
    const found = await measure(quick, chosen)
    return [...found].flatMap(([attack, rounds]) => rowsOf(attack, rounds))
  },
}
