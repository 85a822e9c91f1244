/**
 * What the agent saw of a process, in the words the policy reads (`process.observed`). A field is
 * null when it was not seen; it is never filled from a declaration, a name or a guess.
 */

/** Facts of one process. */
export interface ProcessFacts {
  /** `listener`: holds the listening socket. `accepted`: holds the other end of this connection. */
  readonly phase: 'listener' | 'accepted'
  /** Absolute path, given only when that path names the very file the process runs. */
  readonly exe: string | null
  /** SHA-256 of the file the process runs, 64 lower-case hex digits, whatever its path says now. */
  readonly sha256: string | null
  /** What the file holds now that an interpreter's command line names as its script. */
  readonly script_sha256: string | null
  /** Given only when real, effective, saved and file system uid agree. */
  readonly uid: number | null
  /** The systemd system unit. */
  readonly unit: string | null
  /** `sha256:` and the id of the image its container was made from. */
  readonly image: string | null
  /** Epoch seconds. */
  readonly started_at: number | null
  readonly pid: number | null
}

/** The first owner of a socket, and beside it every further owner whose facts differ. */
export interface Observed extends ProcessFacts {
  readonly others: readonly ProcessFacts[]
}

/** A process of which nothing could be seen. */
export function unseen(phase: ProcessFacts['phase']): Observed {
  return {
    phase,
    exe: null,
    sha256: null,
    script_sha256: null,
    uid: null,
    unit: null,
    image: null,
    started_at: null,
    pid: null,
    others: [],
  }
}

/** More differing owners than this are not reported one by one (see `combine`). */
export const MAX_OTHERS = 8

/** What a declaration can name. */
const NAMED = ['exe', 'sha256', 'script_sha256', 'uid', 'unit', 'image'] as const

function alike(a: ProcessFacts, b: ProcessFacts): boolean {
  return NAMED.every((fact) => a[fact] === b[fact])
}

/**
 * One `Observed` out of all owners, oldest first. Owners alike in everything a declaration can name
 * are told once (a server's workers); the rest are `others`. Undefined when there is no owner, or
 * more than `MAX_OTHERS` differing ones: such a list is refused, never shortened.
 */
export function combine(owners: readonly ProcessFacts[]): Observed | undefined {
  const sorted = owners.toSorted(
    (a, b) => (a.started_at ?? 0) - (b.started_at ?? 0) || (a.pid ?? 0) - (b.pid ?? 0),
  )
  const distinct: ProcessFacts[] = []
  for (const owner of sorted) {
    if (!distinct.some((seen) => alike(seen, owner))) distinct.push(owner)
  }
  const [first, ...others] = distinct
  if (first === undefined || others.length > MAX_OTHERS) return undefined
  return { ...first, others }
}

/**
 * Whether two observations could not be told apart by any declaration, though process ids may
 * differ (a forking server hands the connection from parent to child). An unseen executable is
 * never the same as another.
 */
export function sameFacts(before: Observed, after: Observed): boolean {
  const all = [before, ...before.others, after, ...after.others]
  if (all.some((facts) => facts.sha256 === null)) return false
  const known = [before, ...before.others]
  return [after, ...after.others].every((facts) => known.some((seen) => alike(seen, facts)))
}
