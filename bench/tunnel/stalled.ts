/**
 * A thousand readers that take nothing while their senders send all they may: what gateway and agent
 * then hold is bounded, and 16 who do read keep their rate.
 */
import { defaultLimits } from '#mux'
import type { Row } from '../row.ts'
import { measure, openLines, type Cell, type Ends, type Running } from './cell.ts'
import { ratios, row } from './rows.ts'

const READERS = 16
export const STALLED = 1000
const SETTLE_MS = 8000

export interface StalledPlan {
  readonly rounds: number
  readonly warmMs: number
  readonly ms: number
}

/**
 * The readers alone, rounds of them; then the stalled ones are opened and sent to, and the readers again.
 * The first 16 lines of the path read.
 */
export async function measureStalled(
  ends: Ends,
  path: Running,
  { rounds, warmMs, ms }: StalledPlan,
): Promise<Row[]> {
  const window = { streams: READERS, direction: 'down', warmMs, ms } as const
  await openLines(ends, path, READERS + STALLED)
  const several = async (): Promise<Cell[]> => {
    const cells: Cell[] = []
    for (let round = 0; round < rounds; round++) cells.push(await measure(ends, path, window))
    return cells
  }
  const before = await several()
  const stall = { path: path.number, from: READERS, count: READERS + STALLED }
  await ends.load.call('stall', stall)
  await ends.target.call('flood', stall)
  await new Promise((wake) => setTimeout(wake, SETTLE_MS))
  const after = await several()
  const rate = (cells: readonly Cell[]) => cells.map((cell) => cell.gigabytesPerSecond)
  const held = (of: (cell: Cell) => number) =>
    after.map((cell, round) => of(cell) - (before[round] === undefined ? 0 : of(before[round])))
  const budget = (defaultLimits.receiveMemory / 1024 / 1024).toFixed(0)
  return [
    row(
      {
        metric: 'stalled_path_rate',
        unit: 'x',
        reference: `16 streams down beside ${STALLED} stalled readers of the same tunnel, over the same 16 beside ${STALLED} silent ones; bar ≥ 0.9`,
      },
      ratios(rate(after), rate(before)),
      '',
    ),
    ...(['gatewayMiB', 'agentMiB'] as const).map((process) =>
      row(
        {
          metric: `stalled_path_${process === 'gatewayMiB' ? 'gateway' : 'agent'}_mib`,
          unit: 'MiB',
          reference: `RSS that ${STALLED} stalled readers add; a tunnel may hold ${budget} MiB received and not consumed`,
        },
        held((cell) => cell[process]),
        '',
      ),
    ),
  ]
}
