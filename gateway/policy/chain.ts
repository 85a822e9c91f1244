/**
 * A chain of decisions as it lies on disk, for any thread: lines in order, in segments. Read from a place on it gives each
 * line once, whatever the clock said when it was written; the clock only says where a first look begins.
 */
import { readdirSync, renameSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { END_BYTES, readLine, seqOf, timeOf, type DecisionRecord } from './record.ts'

export const RING_NAMES = ['acts', 'flow'] as const
export type RingName = (typeof RING_NAMES)[number]

export interface Chain {
  readonly name: RingName
  readonly directory: string
}

/**
 * Where reading begins: at the line with this number of the chain, or at the first that was written at this time (epoch
 * milliseconds) or later. From there on all of it comes, also what a clock that went back calls earlier.
 */
export type Begin = { readonly seq: number } | { readonly since: number }

const SLICE_MS = 8

/**
 * What is on disk of a chain, in its order: a segment in memory at a time; the loop turns every 8 ms. What is not kept
 * any more is left out. Throws what the file system throws.
 */
export async function* readChain(chain: Chain, begin: Begin): AsyncGenerator<DecisionRecord> {
  let next = 0
  let from = begin
  for (const segment of segmentsOf(chain)) {
    const path = pathOf(chain, segment)
    const newest = 'seq' in from ? await newestOf(path) : undefined
    if (newest !== undefined && 'seq' in from && newest < from.seq) {
      next = newest + 1
      continue
    }
    const bytes = await readFile(path).catch(unlessGone(Buffer.alloc(0)))
    for await (const { line, seq } of linesOf(bytes, next)) {
      next = seq + 1
      if (!isBehind(line, seq, from)) continue
      // From the first on everything counts.
      from = { seq: 0 }
      const record = readLine(line.toString())
      if (record !== undefined) yield { ...record, seq }
    }
  }
}

function isBehind(line: Buffer, seq: number, from: Begin): boolean {
  return 'seq' in from ? seq >= from.seq : timeOf(line) >= from.since
}

/** Whole lines with their numbers; those of earlier releases say none, and are counted on from `next`. */
async function* linesOf(
  bytes: Buffer,
  next: number,
): AsyncGenerator<{ readonly line: Buffer; readonly seq: number }> {
  let began = performance.now()
  let counted = next
  for (let begin = 0, end = 0; begin < bytes.length; begin = end + 1) {
    end = bytes.indexOf(0x0a, begin)
    if (end < 0) return
    if (performance.now() - began > SLICE_MS) {
      await setImmediate()
      began = performance.now()
    }
    const line = bytes.subarray(begin, end)
    const seq = seqOf(line) ?? counted
    counted = seq + 1
    yield { line, seq }
  }
}

/** Number of the last line of a segment, without reading the segment; undefined where that does not say. */
async function newestOf(path: string): Promise<number | undefined> {
  const file = await open(path).catch(unlessGone(undefined))
  if (file === undefined) return undefined
  await using _closed = file
  const { size } = await file.stat()
  const at = Math.max(0, size - END_BYTES - 1)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(END_BYTES + 1), 0, END_BYTES + 1, at)
  const end = buffer.subarray(0, bytesRead)
  return end.at(-1) === 0x0a ? seqOf(end.subarray(0, -1)) : undefined
}

/** The file of one segment. */
export function pathOf({ directory, name }: Chain, segment: number): string {
  return join(directory, `${name}-${String(segment).padStart(12, '0')}.jsonl`)
}

/** The oldest may be removed while somebody reads. */
export function unlessGone<T>(instead: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return instead
    throw error
  }
}

/** Numbers of the segments there are, oldest first. A log from before there were two chains is the beginning of `acts`. */
export function segmentsOf({ directory, name }: Chain): number[] {
  const there = readdirSync(directory)
  if (name === 'acts' && !there.some((file) => file.startsWith('acts-')))
    for (const file of there.filter((one) => /^\d{12}\.jsonl$/.test(one)))
      renameSync(join(directory, file), join(directory, `acts-${file}`))
  return readdirSync(directory)
    .flatMap((file) => (file.startsWith(`${name}-`) ? [file.slice(name.length + 1)] : []))
    .flatMap((file) => (/^\d{12}\.jsonl$/.test(file) ? [Number(file.slice(0, 12))] : []))
    .toSorted((a, b) => a - b)
}
