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

interface Way {
  readonly streams: number
  readonly direction: Direction
}

export interface Volume extends Way {
  /** On all lines together. */
  readonly bytes: number
}

export interface Window extends Way {
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

/** How one path sends and is read, one way. */
function wayOf(ends: Ends, running: Running, { streams, direction }: Way) {
  const { number: path } = running
  const { gateway, agent } = running.path.hops
  const pids = [ends.load.pid, ends.target.pid, ...gateway, ...agent]
  const [sender, receiver] =
    direction === 'up' ? [ends.load, ends.target] : [ends.target, ends.load]
  return {
    pump: (size: number, bytes = Infinity) =>
      (sender as Remote<Pick<Load, 'pump'>>).call('pump', { path, count: streams, size, bytes }),
    read: () => (receiver as Remote<Pick<Load, 'read'>>).call('read', { path, pids }),
  }
}

/** Sends without end and looks at a window of time in the middle of it. */
export async function measure(ends: Ends, running: Running, window: Window): Promise<Cell> {
  return (await measureWhile(ends, running, window, () => pause(window.ms)))[0]
}

/** Sends without end and looks at the time that `work` takes in the middle of it; what that gives is the second. */
export async function measureWhile<T>(
  ends: Ends,
  running: Running,
  window: Omit<Window, 'ms'>,
  work: () => Promise<T>,
): Promise<[Cell, T]> {
  const { pump, read } = wayOf(ends, running, window)
  await pump(pieceOf(window.streams))
  await pause(window.warmMs)
  const before = await read()
  const value = await work()
  const after = await read()
  await pump(0)
  await quiet(read)
  return [cellOf(running, window, before, after), value]
}

/**
 * Sends so much in all, the same on every line, and looks from the first octet to the last. For many
 * lines: what a window leaves on its way in their sockets takes longer to drain than the window.
 */
export async function measureVolume(ends: Ends, running: Running, volume: Volume): Promise<Cell> {
  const { streams } = volume
  const piece = 64 * 1024
  const each = Math.max(1, Math.round(volume.bytes / streams / piece)) * piece
  const { pump, read } = wayOf(ends, running, volume)
  const before = await read()
  const arrived = (reading: Reading) =>
    total(reading.bytes.slice(0, streams)) - total(before.bytes.slice(0, streams))
  const give = performance.now() + VOLUME_MS
  await pump(piece, each)
  let half: Reading | undefined
  for (;;) {
    const now = await read()
    if (arrived(now) >= each * streams) {
      const whole = cellOf(running, volume, before, now)
      // At the end all have the same; who was ahead shows in the middle.
      const { fairness } = cellOf(running, volume, before, half ?? now)
      return { ...whole, fairness }
    }
    if (half === undefined && arrived(now) >= (each * streams) / 2) half = now
    if (performance.now() > give)
      throw new Error(`${arrived(now)} of ${each * streams} octets in ${VOLUME_MS / 1000} s`)
    await pause(10)
  }
}

const VOLUME_MS = 60_000

function total(bytes: readonly number[]): number {
  return bytes.reduce((sum, one) => sum + one, 0)
}

/** So long nothing arrives where nothing is on its way; a process may wait for a processor for less. */
const QUIET_MS = 100

/** Resolves when nothing arrives any more: what was on its way belongs to nobody else's window. */
async function quiet(read: () => Promise<Reading>): Promise<void> {
  let last = -1
  let since = performance.now()
  for (;;) {
    const now = total((await read()).bytes)
    if (now !== last) since = performance.now()
    else if (performance.now() - since >= QUIET_MS) return
    last = now
    await pause(20)
  }
}

/** The difference of two readings; `cpu` in the order load, target, gateway, agents. */
export function cellOf(running: Running, way: Way, before: Reading, after: Reading): Cell {
  const { streams, direction } = way
  const bytes = Array.from(
    { length: streams },
    (_, at) => (after.bytes[at] ?? 0) - (before.bytes[at] ?? 0),
  )
  const gigabytes = total(bytes) / 1e9
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
