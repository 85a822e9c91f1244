/**
 * The load generator: opens lines on a path, writes bulk on them, counts what comes back, times small
 * requests. The same program and the same code for every path. Started by the bench, answers over IPC.
 */
import { bulk, encodeName, type Entry, type Name, type Purpose, type Reading } from './line.ts'
import { openerOf, type Line, type Opener } from './open.ts'
import type { PumpAsk, StallAsk } from './target.ts'
import { answerWith } from './rpc.ts'
import { cpuSeconds } from './usage.ts'

interface Held {
  readonly line: Line
  received: number
  pumping: Buffer | undefined
  /** Octets that may still be sent. */
  left: number
  /** Why it ended before its time. */
  lost: string | undefined
}

interface Path {
  readonly opener: Opener
  /** By their index; where one could not be opened there is a hole. */
  readonly bulk: (Held | undefined)[]
  echo: Line | undefined
}

const paths = new Map<number, Path>()
/** Openings under way at once: enough to keep a path busy, few enough for every path's patience. */
const AT_ONCE = 8
/** A path that has not opened its lines by then is left out. */
const PATIENCE_MS = 120_000
/** So many lines take every stream that a tunnel may have; the one for small requests, measured by then, makes room. */
const CROWD = 4096

function pump(held: Held): void {
  let more = true
  while (more && held.pumping !== undefined && held.left > 0) {
    held.left -= held.pumping.length
    more = held.line.write(held.pumping)
  }
}

/** Resolves once the target has answered for the line. */
async function open(path: Path, name: Name): Promise<Line> {
  const line = await path.opener.open(name.index)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  line.bytes = () => resolve()
  line.closed = (why) => reject(new Error(`line ${name.index} of path ${name.path}: ${why}`))
  line.write(encodeName(name))
  await promise
  return line
}

async function openBulk(path: Path, name: Name): Promise<void> {
  const line = await open(path, name)
  const held: Held = { line, received: 0, pumping: undefined, left: 0, lost: undefined }
  line.bytes = (chunk) => void (held.received += chunk.length)
  line.drained = () => pump(held)
  line.closed = (why) => void (held.lost = why)
  path.bulk[name.index] = held
}

export interface OpenAsk {
  readonly path: number
  readonly entry: Entry
  readonly purpose: Purpose
  /** How many bulk lines there are to be; those there are stay. */
  readonly count: number
}

export interface PingAsk {
  readonly path: number
  readonly ms: number
  /** Between an answer and the next request, ms. */
  readonly gap: number
  readonly size: number
}

function pathOf(number: number): Path {
  const path = paths.get(number)
  if (path === undefined) throw new Error(`path ${number} is not open`)
  return path
}

async function ping(line: Line, { ms, gap, size }: PingAsk): Promise<Float64Array> {
  const request = Buffer.alloc(size, 7)
  const times: number[] = []
  let answered = Promise.withResolvers<void>()
  let missing = 0
  line.bytes = (chunk) => {
    missing -= chunk.length
    if (missing <= 0) answered.resolve()
  }
  line.closed = (why) => answered.reject(new Error(why))
  const until = performance.now() + ms
  while (performance.now() < until) {
    answered = Promise.withResolvers()
    missing = size
    const began = performance.now()
    line.write(request)
    await answered.promise
    times.push(performance.now() - began)
    if (gap > 0) await new Promise((wake) => setTimeout(wake, gap))
  }
  return Float64Array.from(times)
}

const asks = {
  /** Gives the milliseconds it took. */
  async open({ path: number, entry, purpose, count }: OpenAsk): Promise<number> {
    const path = paths.get(number) ?? { opener: openerOf(entry), bulk: [], echo: undefined }
    paths.set(number, path)
    const began = performance.now()
    if (purpose === 'echo') path.echo ??= await open(path, { path: number, index: count, purpose })
    else {
      if (count >= CROWD) {
        path.echo?.end()
        path.echo = undefined
      }
      let next = path.bulk.length
      const worker = async (): Promise<void> => {
        while (next < count) {
          if (performance.now() - began > PATIENCE_MS)
            throw new Error(`${next} of ${count} lines in ${PATIENCE_MS / 1000} s`)
          await openBulk(path, { path: number, index: next++, purpose })
        }
      }
      await Promise.all(Array.from({ length: AT_ONCE }, worker))
    }
    return performance.now() - began
  },
  /** Throws when one of the lines is not there any more: what it would have carried is no measurement. */
  pump({ path, count, size, bytes = Infinity }: PumpAsk): void {
    const lost = pathOf(path).bulk.find((held) => held?.lost !== undefined)
    if (lost?.lost !== undefined) throw new Error(`a line was lost: ${lost.lost}`)
    const chunk = size === 0 ? undefined : bulk(size)
    for (const held of pathOf(path).bulk.slice(0, count)) {
      if (held === undefined) continue
      held.pumping = chunk
      held.left = bytes
      pump(held)
    }
  },
  /** From now on these lines take nothing: neither counted nor given back. */
  stall({ path, from, count }: StallAsk): void {
    for (const held of pathOf(path).bulk.slice(from, count)) held?.line.stall()
  },
  /** How many of these lines have been ended by somebody else. */
  ended({ path, from, count }: StallAsk): number {
    const lines = pathOf(path).bulk.slice(from, count)
    return lines.filter((held) => held?.lost !== undefined).length
  },
  read({ path, pids }: { readonly path: number; readonly pids: readonly number[] }): Reading {
    const { bulk: held } = pathOf(path)
    const bytes = held.map((one) => one?.received ?? 0)
    return { at: performance.now(), bytes, cpu: cpuSeconds(pids) }
  },
  /** Round trips in milliseconds. */
  async ping(ask: PingAsk): Promise<Float64Array> {
    const { echo } = pathOf(ask.path)
    if (echo === undefined) throw new Error(`path ${ask.path} has no echo line`)
    return await ping(echo, ask)
  },
  /** Of a path that was never opened nothing is left. Where a line failed, its place among the others is empty. */
  async close(number: number): Promise<void> {
    const path = paths.get(number)
    if (path === undefined) return
    paths.delete(number)
    for (const held of path.bulk) held?.line.end()
    path.echo?.end()
    await path.opener.close()
  },
}
export type Load = typeof asks

answerWith(asks)
