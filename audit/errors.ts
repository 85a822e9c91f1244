/** What the room refuses, by code. audit/ throws no other error of its own. */

/**
 * - `event.*`: the event as given cannot be written (a mistake of the caller).
 * - `log.closed`: closed or closing. `log.locked`: another writer has this directory. `log.overloaded`: the queue is full.
 * - `log.write`: the write or sync failed; nothing may be done on the strength of this event.
 * - `log.full`: the disk is full, and this event is none that the reserve is for. `log.room`: no room for one more
 *   session beside those that were admitted.
 * - `log.poisoned`: refused at once, because an earlier write failed and recovery has not succeeded yet.
 * - `log.draining`: the log cannot append and has given up trying quietly.
 * - `log.corrupt`, `log.rollback`, `log.origin`: found when opening; a person must look, nothing was changed.
 * - `log.ended`: this epoch ended, as its last event says, and goes on as another; nothing is added to it.
 * - `log.range`: an index outside the log. `key.*`, `note.*`: a verifier key or signed note that is not one.
 * - `evidence.*`: a catalogue or a time that no package can be made of.
 * - `recording.*`: a key that is none, a file that was not sealed to it or is not as it was sealed, a disk that does
 *   not take what is recorded, or more of it than was reserved.
 * - `mirror.fork`, `mirror.rollback`: the log followed is not the one that was held; the evidence is kept, a person must
 *   look. `mirror.unproven`: what was served does not lead to the signed head; asked again. `mirror.source`: it did not
 *   answer, or not in the format. `mirror.other`: it is a log of another name. `mirror.conflict`: evidence from before lies there, so nothing is followed.
 * - `witness.unknown`: no known witness signed. `witness.conflict`: one signed what this log is not.
 * - `prune.archive`: what is to be let go of is not shown to be kept elsewhere. `prune.busy`: another prune of this log is
 *   under way. `prune.failed`: it was recorded and could not be brought to its end; the next one does that.
 * - `rotate.*`: the log goes on in the epoch it was in. `busy`: it is being rotated or pruned. `state`: it is not well.
 *   `sessions`: more are open than the next could name. `keys`: the next keys could not be made. `failed`: behind them.
 * - `cursor.invalid`, `frame.*`: shipping and receiving.
 */
export type AuditCode =
  | 'event.code'
  | 'event.field'
  | 'event.too_large'
  | 'log.closed'
  | 'log.locked'
  | 'log.overloaded'
  | 'log.write'
  | 'log.poisoned'
  | 'log.full'
  | 'log.room'
  | 'log.corrupt'
  | 'log.rollback'
  | 'log.origin'
  | 'log.ended'
  | 'log.range'
  | 'key.invalid'
  | 'note.invalid'
  | 'note.signature'
  | 'mirror.fork'
  | 'mirror.rollback'
  | 'mirror.other'
  | 'mirror.unproven'
  | 'mirror.source'
  | 'mirror.conflict'
  | 'witness.unknown'
  | 'witness.conflict'
  | 'prune.archive'
  | 'prune.busy'
  | 'prune.failed'
  | 'rotate.busy'
  | 'rotate.state'
  | 'rotate.sessions'
  | 'rotate.keys'
  | 'rotate.failed'
  | 'cursor.invalid'
  | 'evidence.catalogue'
  | 'evidence.range'
  | 'recording.key'
  | 'recording.identity'
  | 'recording.sealed'
  | 'recording.write'
  | 'recording.budget'
  | 'recording.slow'
  | 'recording.unknown'
  | 'frame.length'
  | 'frame.syntax'

/** Where in a log something was found: enough to open the file at the byte. */
export interface Place {
  readonly origin: string
  /** The leaf it concerns; null where the damage is in no leaf. */
  readonly idx: number | null
  /** The file, relative to the log's directory. */
  readonly segment: string
  /** Byte offset in that file. */
  readonly offset: number
  /** What is wrong, in words. */
  readonly what: string
}

export class AuditError extends Error {
  override readonly name = 'AuditError'
  readonly code: AuditCode
  readonly place: Place | undefined
  constructor(code: AuditCode, message: string, options: ErrorOptions & { place?: Place } = {}) {
    super(message, options)
    this.code = code
    this.place = options.place
  }
}
