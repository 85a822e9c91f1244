/** What room on the disk means for the log: its state, what is kept back, and what a batch may be paid from. */
import type { LogState } from './contract.ts'
import type { LogLimits } from './options.ts'
import type { Spend } from './reserve.ts'
import type { ThreadData } from './serve.ts'

/** A state that want of room brought is left when there is a tenth more than its limit, or it would come and go. */
const relief = 1.1

/** The state that so many free bytes bring, and why. */
export function stateOf(
  free: number,
  { floorBytes, warnBytes }: Required<LogLimits>,
  now: LogState,
): readonly [LogState, string] {
  const below = (limit: number, held: boolean): boolean => free < limit * (held ? relief : 1)
  if (below(floorBytes, now === 'CLOSED_NEW' || now === 'DRAIN'))
    return ['CLOSED_NEW', `${free} bytes are free, the floor is ${floorBytes}`]
  if (below(warnBytes, now !== 'OK'))
    return ['WARN', `${free} bytes are free, which is less than ${warnBytes}`]
  return ['OK', 'the disk has room again']
}

/** What the writer keeps back; undefined: nothing, and it need not look at the disk before it writes. */
export function keptBack({
  closeoutBytes,
  breakglassBytes,
  floorBytes,
}: Required<LogLimits>): ThreadData['reserve'] {
  if (closeoutBytes + breakglassBytes === 0) return undefined
  return { closeoutBytes, breakglassBytes, floorBytes }
}

/** From what a batch may be paid: nothing, if one of it may not be; `mixed`: it must be divided first. */
export type Purse = Spend | 'mixed' | null

/** The purse of a batch: each file pays for its own events alone, so one of both is of neither. */
export function purseOf(batch: readonly { readonly spend: Spend | null }[]): Purse {
  let purse: Purse = batch[0]?.spend ?? null
  for (const { spend } of batch) {
    if (spend === null) return null
    if (spend !== purse) purse = 'mixed'
  }
  return purse
}
