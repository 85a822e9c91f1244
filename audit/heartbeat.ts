/** What a heartbeat commits to: the set of active sessions, also when it is empty. design: audit.md section 2. */
import { leafHash, rootOf } from './tree.ts'

/** One active session. */
export interface ActiveLine {
  readonly session: string
  readonly grant: string
  readonly device: string
  readonly process: string
  readonly party: string
  readonly kind: string
  /** Index of its session.start. */
  readonly startIdx: number
}

/** Merkle root (hex) over the sorted lines `session|grant|device|process|party|kind|start idx`. */
export function activeRoot(active: readonly ActiveLine[]): string {
  const lines = active.map((line) =>
    [
      line.session,
      line.grant,
      line.device,
      line.process,
      line.party,
      line.kind,
      line.startIdx,
    ].join('|'),
  )
  const sorted = lines.map((line) => Buffer.from(line)).toSorted((a, b) => Buffer.compare(a, b))
  return Buffer.from(rootOf(sorted.map(leafHash))).toString('hex')
}
