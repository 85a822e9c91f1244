/**
 * One form for every bench: a bench is a name and a function that gives rows; bench/main.ts prints
 * and writes them. A ratio says in `reference` what it stands on, measured in the same run.
 */

/** One measured number. */
export interface Row {
  /** What was measured, as a stable dotted or spaced name: `goodput, 1 stream`. */
  readonly metric: string
  /** The median over the repetitions; null where it could not be measured, and then `why` says so. */
  readonly value: number | null
  /** `MB/s`, `us`, `x`, `events/s`, … */
  readonly unit: string
  /** The limit or peer of the same run that the number is to be read against. */
  readonly reference: string
  /** Why there is no value: the absent program, the refused capability. */
  readonly why?: string
  /** How far the repetitions lay apart, with its unit: `±3 %`, `p99 41 us`. */
  readonly spread?: string
}

export interface RunOptions {
  readonly quick: boolean
  /** Words of --only: what of the bench is to run, where it can be told apart. */
  readonly only?: readonly string[]
  /** Where a bench that draws is to put its picture. */
  readonly plot?: string
}

/** A bench file `bench/<name>.ts` exports `bench: Bench`. */
export interface Bench {
  readonly name: string
  /** One line for the list and above the table. */
  readonly title: string
  /** Measures; `quick` leaves at most two minutes on two cores. Rows come back in printing order. */
  run(options: RunOptions): Promise<Row[]>
}
