/**
 * One account of the room on the log's disk: what is free, what is promised to whoever was admitted, what is kept back.
 * Everything that writes to that disk is admitted here, or two could be promised the same room. docs/audit.md section
 * "A full disk".
 */
import type { Promised, Room } from './contract.ts'
import { AuditError } from './errors.ts'
import type { Watched } from './writer.ts'

export class Ledger {
  /** What is promised, as the writer's thread sees it too, at every moment: one number (`promisedIn`). */
  readonly shared = new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT)
  readonly #shared = new BigInt64Array(this.shared)
  #room: Room = { freeBytes: null, reservedBytes: 0, reserve: null }
  /** Written of promises since the disk began to be looked at: the answer may not know of it. */
  #since = 0

  get room(): Room {
    return this.#room
  }

  /** The disk is about to be looked at. */
  asked(): void {
    this.#since = 0
  }

  /** What it was seen to hold. */
  look({ freeBytes, reserve }: Pick<Watched, 'freeBytes' | 'reserve'>): void {
    this.#room = { ...this.#room, freeBytes: Math.max(0, freeBytes - this.#since), reserve }
  }

  /**
   * Promises `bytes`, where `floorBytes` stay free beside all promises and what the reserve still lacks: it is not
   * filled at the price of a promise, so no promise is made at its price. Throws AuditError log.room.
   */
  admit(bytes: number, floorBytes: number): Promised {
    const { freeBytes, reservedBytes, reserve } = this.#room
    const kept = reservedBytes + (reserve?.missing ?? 0)
    const left = freeBytes === null ? Infinity : freeBytes - kept - bytes
    if (left < floorBytes) throw noRoom(bytes, reservedBytes)
    this.#change(bytes, 0)
    let held = bytes
    const give = (given: number, written: number): void => {
      held -= given
      this.#change(-given, written)
    }
    return {
      used: (written) => {
        give(Math.min(held, written), written)
      },
      release: () => give(held, 0),
    }
  }

  /** What is written is no longer free, which the disk itself says only when it is looked at again. */
  #change(promised: number, written: number): void {
    const { freeBytes, reservedBytes } = this.#room
    this.#since += written
    this.#room = {
      ...this.#room,
      freeBytes: freeBytes === null ? null : Math.max(0, freeBytes - written),
      reservedBytes: reservedBytes + promised,
    }
    Atomics.store(this.#shared, 0, BigInt(this.#room.reservedBytes))
  }
}

/** Reads, in whichever thread, what a ledger has promised. */
export function promisedIn(shared: SharedArrayBuffer): () => number {
  const cells = new BigInt64Array(shared)
  return () => Number(Atomics.load(cells, 0))
}

/** The refusal of what has no room. */
export function noRoom(bytes: number, reservedBytes: number): AuditError {
  return new AuditError(
    'log.room',
    `the disk of the audit log has no room for ${bytes} bytes more beside ${reservedBytes} promised`,
  )
}
