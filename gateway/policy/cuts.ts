/** How fast a change of the policy was felt: of all that it cut, from the swap until the last socket of each was closed. */

export interface CutTimes {
  readonly revision: string
  /** When it came into force, epoch seconds. */
  readonly at: number
  /** Sessions that ended. */
  readonly sessions: number
  /** Connections that were cut in sessions that go on. */
  readonly connections: number
  /** Milliseconds, of sessions and connections together; null where nothing was cut. */
  readonly p50_ms: number | null
  readonly slowest_ms: number | null
}

interface Cut {
  readonly time_to_cut_ms: number
}

/** Of one change. `at` is in epoch milliseconds; the p50 is a time that was measured (nearest rank), not one between two. */
export function cutTimes(
  { revision, at }: { readonly revision: string; readonly at: number },
  sessions: readonly Cut[],
  connections: readonly Cut[],
): CutTimes {
  const times = [...sessions, ...connections]
    .map(({ time_to_cut_ms: took }) => took)
    .toSorted((a, b) => a - b)
  return {
    revision,
    at: Math.floor(at / 1000),
    sessions: sessions.length,
    connections: connections.length,
    p50_ms: times[Math.ceil(times.length / 2) - 1] ?? null,
    slowest_ms: times.at(-1) ?? null,
  }
}
