/**
 * How long the slowest vector takes. A machine that is busy or slow is no finding: of each call the best of several counts,
 * and where the built-in rules are slow too, so may others be.
 */
import { readFile } from 'node:fs/promises'
import { BUILTIN_BUNDLE, loadBundle } from '../bundle.ts'
import { CompiledPolicy } from '../module.ts'
import type { PolicyInstance } from '../module.ts'
import { ENTRYPOINTS, POINTS } from '../points.ts'
import type { Point } from '../envelope.ts'
import type { Gate } from './check.ts'
import type { Vector } from './vectors.ts'

/** What the slowest vector may take, 99 of 100 times, in milliseconds. */
const SLOWEST_P99_MS = 1
/** The same in times of what the built-in rules take for the slowest of those they carry: on the machine of the bench it is no more. */
const TIMES_BUILTIN = 12

const ROUNDS = 100
const BATCHES = 5
const AGAIN = 4

/**
 * The gate `speed`. Takes the vectors, an instance over the data of each, and `yardstick`: what a vector takes the built-in
 * rules here, in milliseconds; undefined where that is not known.
 */
export function speed(
  vectors: readonly Vector[],
  instanceFor: (data: unknown) => PolicyInstance,
  yardstick: number | undefined,
): Gate {
  const most = Math.max(SLOWEST_P99_MS, TIMES_BUILTIN * (yardstick ?? 0))
  const timed = vectors.map((vector) => ({ ...vector, on: instanceFor(vector.data) }))
  const slowest = slowestOf(timed, most)
  const why =
    most > SLOWEST_P99_MS ? `, ${TIMES_BUILTIN} times what the built-in rules take here` : ''
  const detail = `slowest vector ${slowest.name}: ${slowest.ms.toFixed(2)} ms, at most ${Number(most.toFixed(2))}${why}`
  return { gate: 'speed', ok: slowest.ms <= most, detail }
}

/** What the slowest vector that the built-in bundle carries takes here; undefined where there is none that verifies. */
export async function builtinPace(): Promise<number | undefined> {
  try {
    const bytes = await readFile(BUILTIN_BUNDLE)
    const { wasm, dataText, vectors } = await loadBundle(bytes, {
      trust: 'builtin',
      highWater: null,
    })
    const on = (await CompiledPolicy.compile(wasm, dataText, ENTRYPOINTS)).instance()
    const timed = vectors.map((vector) => ({ ...vector, topic: 'built-in', on }))
    return slowestOf(timed, 0).ms
  } catch {
    // While a release is built there may be none: then the bar itself has to do.
    return undefined
  }
}

interface Timed {
  readonly topic: string
  readonly name: string
  readonly point: Point
  readonly input: unknown
  readonly on: PolicyInstance
}

/** One that takes longer than `most` is timed again, so that it is the rule and not what else went on meanwhile. */
function slowestOf(
  vectors: readonly Timed[],
  most: number,
): { readonly name: string; readonly ms: number } {
  let slowest = { name: '', ms: 0 }
  for (const { topic, name, point, input, on } of vectors) {
    const text = JSON.stringify(input)
    const evaluate = () => on.evaluate(POINTS[point].entrypoint, text)
    let ms = slow(evaluate)
    for (let again = 0; ms > most && again < AGAIN; again++) ms = Math.min(ms, slow(evaluate))
    if (ms > slowest.ms) slowest = { name: `${topic}: ${name}`, ms }
  }
  return slowest
}

/** Milliseconds that 99 of 100 calls stay below, each the fastest of its place in every batch. */
function slow(evaluate: () => unknown): number {
  const took = Array.from({ length: ROUNDS }, () => Infinity)
  for (let batch = 0; batch < BATCHES; batch++)
    for (const [at, best] of took.entries()) {
      const began = performance.now()
      evaluate()
      took[at] = Math.min(best, performance.now() - began)
    }
  return took.toSorted((a, b) => a - b)[Math.floor(ROUNDS * 0.99) - 1] ?? 0
}
