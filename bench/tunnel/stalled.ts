/**
 * A thousand readers that take nothing while their senders send: what gateway and agent then hold is
 * bounded, and 16 on the same tunnels who do read keep their rate. Beside it the same path with a
 * thousand silent lines, in turns; then the senders send without end, until the kernel is short.
 */
import { readFileSync } from 'node:fs'
import { defaultLimits } from '#mux'
import type { Row } from '../row.ts'
import { measure, openLines, type Cell, type Ends, type Running } from './cell.ts'
import { ratios, row } from './rows.ts'

const READERS = 16
export const STALLED = 1000
const SETTLE_MS = 6000
/**
 * Per stalled line: four times what a stream may have under way, so that all there is of the product is
 * full. What is left stays in the target's own send buffers, and there the kernel still has room for it.
 */
const ENOUGH_BYTES = 4 * defaultLimits.initialWindow

export interface StalledPlan {
  readonly rounds: number
  readonly warmMs: number
  readonly ms: number
}

/** Two paths that run, alike but for who stalls on them. The first 16 lines of each read. */
export interface Both {
  readonly silent: Running
  readonly stalled: Running
}

export async function measureStalled(
  ends: Ends,
  { silent, stalled }: Both,
  { rounds, warmMs, ms }: StalledPlan,
): Promise<Row[]> {
  const window = { streams: READERS, direction: 'down', warmMs, ms } as const
  for (const path of [silent, stalled]) await openLines(ends, path, READERS + STALLED)
  const inTurns = async () => {
    const cells: { beside: Cell; alone: Cell }[] = []
    for (let round = 0; round < rounds; round++)
      cells.push({
        beside: await measure(ends, stalled, window),
        alone: await measure(ends, silent, window),
      })
    return cells
  }
  const still = await measure(ends, stalled, window)
  const lines = { path: stalled.number, from: READERS, count: READERS + STALLED }
  await ends.load.call('stall', lines)
  await ends.target.call('flood', { ...lines, bytes: ENOUGH_BYTES })
  await settled()
  const full = await inTurns()
  await ends.target.call('flood', { ...lines, bytes: Infinity })
  await settled()
  const before = dropped()
  const flooded = await inTurns()
  const drops = dropped() - before
  const ended = await ends.load.call('ended', lines)
  return [
    rateRow('stalled_path_rate', full, `${STALLED} stalled readers of the same tunnels`),
    ...(['gateway', 'agent'] as const).map((process) => heldRow(process, still, full)),
    rateRow('stalled_path_flood_rate', flooded, 'as many whose senders never stop'),
    // Without memory the kernel would drop from everybody, who is alone too: a ratio would not show it.
    row(
      {
        metric: 'stalled_path_flood_drops',
        unit: 'packets',
        reference:
          'dropped meanwhile by the kernel for want of memory, in all sockets of the machine',
      },
      [drops],
      '',
    ),
    row(
      {
        metric: 'stalled_path_flood_ended',
        unit: 'streams',
        reference: `of ${STALLED} stalled ones, ended by the agent because the kernel ran short of memory for TCP`,
      },
      [ended],
      '',
    ),
  ]
}

const settled = () => new Promise((wake) => setTimeout(wake, SETTLE_MS))

type Turns = readonly { readonly beside: Cell; readonly alone: Cell }[]

function rateRow(metric: string, turns: Turns, beside: string): Row {
  const reference = `${READERS} streams down beside ${beside}, over ${READERS} beside ${STALLED} silent ones; bar ≥ 0.9`
  const rate = (of: 'beside' | 'alone') => turns.map((turn) => turn[of].gigabytesPerSecond)
  return row({ metric, unit: 'x', reference }, ratios(rate('beside'), rate('alone')), '')
}

/** Packets that the kernel has dropped because a socket could have no more memory. */
function dropped(): number {
  const lines = readFileSync('/proc/net/netstat', 'latin1').split('\n')
  const [names, counts] = lines
    .filter((line) => line.startsWith('TcpExt:'))
    .map((line) => line.split(' '))
  return Number(counts?.[names?.indexOf('TCPRcvQDrop') ?? -1] ?? Number.NaN)
}

function heldRow(process: 'gateway' | 'agent', before: Cell, turns: Turns): Row {
  const budget = (defaultLimits.receiveMemory / 1024 / 1024).toFixed(0)
  const reference = `RSS that ${STALLED} stalled readers add; a tunnel may hold ${budget} MiB received and not consumed`
  const of = `${process}MiB` as const
  const held = turns.map(({ beside }) => beside[of] - before[of])
  return row({ metric: `stalled_path_${process}_mib`, unit: 'MiB', reference }, held, '')
}
