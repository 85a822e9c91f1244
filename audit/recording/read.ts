/** A recording put together again by somebody who can open it: each part in its place, or the place where it fails. */
import { AuditError } from '../errors.ts'
import type { Identity } from './keys.ts'
import { fileOf, isMarked, markOf, sha256, type Part } from './parts.ts'
import { openSealed, type Opened } from './seal.ts'

export interface SealedPart extends Part {
  readonly sealed: Uint8Array
}

/**
 * The content of one track, in order. `parts` are all of that track, as logged. Throws AuditError `recording.sealed`
 * with the file: a hash that is not the logged one, a part that says of itself it is another, a gap, a change; and
 * `recording.identity` where none of the keys opens it.
 */
export function readTrack(
  session: string,
  parts: readonly SealedPart[],
  identities: readonly Identity[],
): Uint8Array {
  const plain: Uint8Array[] = []
  let previous: string | undefined
  for (const [at, one] of parts.entries()) {
    const file = fileOf(one)
    const refuse = (what: string): never => {
      throw new AuditError('recording.sealed', `${file}: ${what}`)
    }
    if (one.part !== at + 1) refuse(`part ${at + 1} is missing before it`)
    // Whoever can cut a part can say that it is torn. The last of a track is the only one that can be.
    if (one.torn && at < parts.length - 1) refuse('it is called torn, and another part follows')
    if (sha256(one.sealed) !== one.sha256) refuse('its hash is not the one in the log')
    const opened = open(file, one, identities)
    if (opened === undefined) continue
    if (!isMarked(opened.marks, markOf(session, one, previous)))
      refuse('it says of itself that it belongs elsewhere')
    previous = one.sha256
    plain.push(opened.plain)
  }
  return Buffer.concat(plain)
}

/** Undefined where the gateway died before the header of a part was on disk: its hash says that it was so. */
function open(
  file: string,
  { sealed, torn }: SealedPart,
  identities: readonly Identity[],
): Opened | undefined {
  try {
    return openSealed(sealed, identities, { torn })
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    if (torn && error.code === 'recording.sealed') return undefined
    throw new AuditError(error.code, `${file}: ${error.message}`, { cause: error })
  }
}
