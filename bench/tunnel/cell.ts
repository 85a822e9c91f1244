/** One measurement: so many lines of one path, one direction, one window of time. */
import type { Reading } from './line.ts'
import type { Load } from './load.ts'
import type { Path } from './path.ts'
import type { Remote } from './rpc.ts'
import type { Target } from './target.ts'
import { residentKiB } from './usage.ts'

export type Direction = 'up' | 'down'

/** A path that runs, under the number its lines carry. */
export interface Running {
  readonly name: string
  readonly number: number
  readonly path: Path
}

export interface Ends {
  readonly load: Remote<Load>
  readonly target: Remote<Target>
}

/** What one window gave. */
export interface Cell {
  readonly path: string
  readonly streams: number
  readonly direction: Direction
  readonly gigabytesPerSecond: number
  /** CPU-seconds per gigabyte of payload, per process. */
  readonly cpu: {
    readonly load: number
    readonly gateway: number
    readonly agent: number
    readonly target: number
  }
  /** The slowest line's bytes over the fastest's. */
  readonly fairness: number
  readonly gatewayMiB: number
  readonly agentMiB: number
}

export interface Window {
  readonly streams: number
  readonly direction: Direction
  /** Before the window, and the window itself. */
  readonly warmMs: number
  readonly ms: number
}

const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms))

/** Larger pieces cost their sender less; many lines want smaller turns. */
function pieceOf(streams: number): number {
  return streams <= 16 ? 256 * 1024 : 64 * 1024
}

/** Makes sure that the path has so many lines. Gives the milliseconds that opening them took. */
export async function openLines({ load }: Ends, running: Running, count: number): Promise<number> {
  const { number: path } = running
  return await load.call('open', { path, entry: running.path.entry, purpose: 'bulk', count })
}

export async function measure(ends: Ends, running: Running, window: Window): Promise<Cell> {
  const { number: path } = running
  const { streams, direction } = window
  const { gateway, agent } = running.path.hops
  const pids = [ends.load.pid, ends.target.pid, ...gateway, ...agent]
  const [sender, receiver] =
    direction === 'up' ? [ends.load, ends.target] : [ends.target, ends.load]
  const pump = (size: number) =>
    (sender as Remote<Pick<Load, 'pump'>>).call('pump', { path, count: streams, size })
  const read = () => (receiver as Remote<Pick<Load, 'read'>>).call('read', { path, pids })
  await pump(pieceOf(streams))
  await pause(window.warmMs)
  const before = await read()
  await pause(window.ms)
  const after = await read()
  await pump(0)
  await quiet(read)
  return cellOf(running, window, before, after)
}

/** Resolves when nothing arrives any more: what was on its way belongs to nobody else's window. */
async function quiet(read: () => Promise<Reading>): Promise<void> {
  let last = -1
  for (;;) {
    const total = (await read()).bytes.reduce((sum, bytes) => sum + bytes, 0)
    if (total === last) return
    last = total
    await pause(20)
  }
}

/** The difference of two readings; `cpu` in the order load, target, gateway, agents. */
export function cellOf(running: Running, window: Window, before: Reading, after: Reading): Cell {
  const { streams, direction } = window
  const bytes = Array.from(
    { length: streams },
    (_, at) => (after.bytes[at] ?? 0) - (before.bytes[at] ?? 0),
  )
  const gigabytes = bytes.reduce((sum, one) => sum + one, 0) / 1e9
  const { gateway, agent } = running.path.hops
  const spent = after.cpu.map((seconds, at) => seconds - (before.cpu[at] ?? 0))
  const per = (from: number, count: number) =>
    spent.slice(from, from + count).reduce((sum, one) => sum + one, 0) / gigabytes
  return {
    path: running.name,
    streams,
    direction,
    gigabytesPerSecond: gigabytes / ((after.at - before.at) / 1000),
    cpu: {
      load: per(0, 1),
      target: per(1, 1),
      gateway: per(2, gateway.length),
      agent: per(2 + gateway.length, agent.length),
    },
    fairness: Math.min(...bytes) / Math.max(...bytes),
    gatewayMiB: mebibytes(gateway),
    agentMiB: mebibytes(agent),
  }
}

function mebibytes(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + residentKiB(pid), 0) / 1024
}
