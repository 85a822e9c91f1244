/**
 * The one hand that writes: a batch is one write and one sync, and nobody hears of an event before both are done.
 * Synchronous and single: it runs in a thread of its own, or in a test's. docs/audit.md section "Writing".
 */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Batch } from './batch.ts'
import { signCheckpoint } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { AuditError } from './errors.ts'
import { writeAll } from './disk.ts'
import type { Disk } from './disk.ts'
import type { NoteSigner, Verifier } from './note.ts'
import { recover } from './recover.ts'
import type { Found } from './recover.ts'
import { Reserve, type ReserveSizes, type Spend } from './reserve.ts'
import type { Purse } from './room.ts'
import { headerBytes, sealFrame, segmentName } from './segment.ts'
import { thinnedPath } from './thin.ts'
import { leafHashInPlace, type Frontier, type Hash } from './tree.ts'

export interface WriterOptions {
  readonly directory: string
  readonly origin: string
  readonly signers: readonly NoteSigner[]
  /** Whose signatures the heads carry; default the signers' own. A mirror signs nothing in the log's name. */
  readonly verifiers?: readonly Verifier[]
  readonly disk: Disk
  readonly segmentBytes: number
  /** Room kept back, and what must stay free while it is filled. */
  readonly reserve?: ReserveSizes & { readonly floorBytes: number }
  /** Bytes of the disk that are promised to others at this moment: the reserve is not filled at their price. */
  readonly promised?: () => number
}

export interface Written {
  readonly first: number
  /** Leaf hashes, 32 bytes each, in order. */
  readonly leaves: Uint8Array
  /** Whether this batch began a new segment. */
  readonly rotated: boolean
}

export interface Opened {
  readonly size: number
  readonly signed: Checkpoint | null
  readonly heartbeat: number | null
  readonly sessions: readonly (readonly [string, string])[]
  /** What the last leaf says, where it ends the log: nothing is to be appended then. */
  readonly closing: Found['closing']
  readonly quarantinedBytes: number
  readonly place: Found['place']
}

export interface Watched {
  /** What is wrong with the open segment's file; null when nothing is. */
  readonly alarm: string | null
  /** Free to everybody: without what the reserve gave up for its own events. */
  readonly freeBytes: number
  /** Bytes still kept back, and how many are missing. */
  readonly reserve: {
    readonly closeout: number
    readonly breakglass: number
    readonly missing: number
  }
}

interface Open {
  readonly path: string
  readonly fd: number
  bytes: number
}

/** Room for a head in two files and a tile or two. */
const marginBytes = 64 * 1024

function isFull(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : ''
  return code === 'ENOSPC' || code === 'EDQUOT'
}

function unpruned(cause: unknown): AuditError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new AuditError('prune.failed', `the prune could not be brought to its end: ${why}`, {
    cause,
  })
}

/** The bytes of a file from `start` to `end`. */
function readBetween(path: string, start: number, end: number): Buffer {
  const fd = openSync(path, 'r')
  try {
    const bytes = Buffer.alloc(Math.max(0, end - start))
    let done = 0
    while (done < bytes.length) {
      const read = readSync(fd, bytes, done, bytes.length - done, start + done)
      if (read === 0) throw new Error(`${path} ends before byte ${end}`)
      done += read
    }
    return bytes
  } finally {
    closeSync(fd)
  }
}

export class Writer {
  readonly #options: WriterOptions
  #found!: Found
  #segment!: Open
  #notes!: Open
  readonly #reserve: Reserve
  readonly #held = new Set<number>()
  #batch = -1
  #signedSize = 0
  /** Given up by each file of the reserve and not written yet: room for what that file pays for, and for nothing else. */
  readonly #credit: Record<Spend, number> = { closeout: 0, breakglass: 0 }

  constructor(options: WriterOptions) {
    this.#options = options
    const none = { closeoutBytes: 0, breakglassBytes: 0 }
    this.#reserve = new Reserve(options.directory, options.disk, options.reserve ?? none)
  }

  /** Recovers, then holds the open segment. Errors: those of recover, and the disk's. */
  open(): Opened {
    const { directory, origin, signers, disk } = this.#options
    const verifiers = this.#options.verifiers ?? signers.map((signer) => signer.verifier)
    const found = recover(directory, origin, verifiers, disk)
    this.#found = found
    this.#fill()
    this.#batch = found.batch
    this.#signedSize = found.signed?.size ?? 0
    this.#segment = this.#create(join('seg', segmentName(found.segment.first)), found.segment.bytes)
    this.#notes = this.#create('checkpoints.log', found.notesBytes)
    // A prune that was killed left them.
    disk.remove(thinnedPath(this.#notes.path))
    // A crash between the two writes of a checkpoint left the published one behind.
    if (found.signed !== null && found.signed.note !== found.published) {
      this.#makeRoom(0, 'closeout')
      this.#publish(found.signed)
    }
    const { signed, heartbeat, closing, quarantinedBytes, place } = found
    const sessions = [...found.sessions]
    const { size } = found.frontier
    return { size, signed, heartbeat, sessions, closing, quarantinedBytes, place }
  }

  get size(): number {
    return this.#found.frontier.size
  }

  /** The tree over what is durable, to try further leaves on. */
  tree(): Frontier {
    return this.#found.frontier.copy()
  }

  /** A file is durable as a name before it holds a byte that counts. */
  #create(name: string, bytes: number): Open {
    const { directory, disk } = this.#options
    const path = join(directory, name)
    const fd = disk.openAppend(path)
    this.#held.add(fd)
    disk.fdatasync(fd)
    disk.syncDirectory(join(path, '..'))
    disk.syncDirectory(directory)
    return { path, fd, bytes }
  }

  #fill(): void {
    const { reserve, promised = () => 0 } = this.#options
    if (reserve === undefined) return
    // There is room for everybody again, so nothing that was given up need be told apart from it.
    if (this.#reserve.fill(() => reserve.floorBytes + promised()) > 0)
      this.#credit.closeout = this.#credit.breakglass = 0
  }

  /** Gives up room for what `purse` pays for. False: it has none, or is none. */
  #give(purse: Purse, bytes: number): boolean {
    if (purse === null || purse === 'mixed') return false
    const given = this.#reserve.release(purse, bytes)
    this.#credit[purse] += given
    return given > 0
  }

  #spent(purse: Purse, bytes: number): void {
    if (purse === null || purse === 'mixed') return
    this.#credit[purse] = Math.max(0, this.#credit[purse] - bytes)
  }

  /** Bytes free to what `purse` pays for: without what was given up for others. */
  #freeFor(purse: Purse): number {
    const { closeout, breakglass } = this.#credit
    const own = purse === null || purse === 'mixed' ? 0 : this.#credit[purse]
    const free = this.#options.disk.freeBytes(this.#options.directory)
    return Math.max(0, free - (closeout + breakglass - own))
  }

  #full(free: number): AuditError {
    return new AuditError('log.full', `${free} bytes are free on the disk of the audit log`)
  }

  /**
   * Sees to it that `bytes` fit beside a head and a tile, giving up what is kept back for `purse`. Errors: log.full
   * where there is neither room nor a reserve; nothing was written then.
   */
  #makeRoom(bytes: number, purse: Purse): void {
    if (this.#options.reserve === undefined) return
    const need = bytes + marginBytes
    const free = this.#freeFor(purse)
    if (free < need && !this.#give(purse, need - free)) throw this.#full(free)
  }

  /**
   * `append` where the disk may be full: makes room first, and where another program took it meanwhile, once more, on
   * files opened anew. Errors: log.full (nothing was written), and those of `append`.
   */
  appendWithin(batch: Batch, purse: Purse): Written {
    const { length } = batch.bytes
    this.#makeRoom(length, purse)
    try {
      return this.#paid(batch, purse)
    } catch (error) {
      if (!isFull(error) || this.#options.reserve === undefined) throw error
      const more = this.#give(purse, length)
      this.reopen()
      if (!more) throw this.#full(this.#freeFor(purse))
      return this.#paid(batch, purse)
    }
  }

  #paid(batch: Batch, purse: Purse): Written {
    const written = this.append(batch)
    this.#spent(purse, batch.bytes.length)
    return written
  }

  /**
   * Appends one batch. When it returns, every event is durable; when it throws, none may be acted on, and the
   * writer must be opened anew before it is used again.
   */
  append(batch: Batch): Written {
    const { disk, segmentBytes } = this.#options
    const first = this.#found.frontier.size
    if (batch.first !== first)
      throw new Error(`a batch for ${batch.first} where ${first} events are written`)
    const { length } = batch.bytes
    const rotated = this.#segment.bytes > 0 && this.#segment.bytes + length > segmentBytes
    if (rotated) this.#rotate(first)
    const { block, hashes } = this.#seal(batch)
    writeAll(disk, this.#segment.fd, block, this.#segment.bytes)
    disk.fdatasync(this.#segment.fd)
    this.#segment.bytes += length
    this.#batch++
    for (const leaf of hashes) this.#found.frontier.push(leaf, this.#found.tiles.add)
    return { first, leaves: Buffer.concat(hashes), rotated }
  }

  /** Fills the headers of a batch; a frame that does not end where the next begins is refused before any write. */
  #seal({ first, count, bytes }: Batch): { block: Buffer; hashes: Hash[] } {
    const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    const hashes: Hash[] = []
    let at = 0
    for (let i = 0; i < count; i++) {
      const end = sealFrame(block, at, first + i, this.#batch + 1)
      hashes.push(leafHashInPlace(block, at + headerBytes, end))
      at = end
    }
    if (at !== block.length)
      throw new Error(`a batch of ${block.length} bytes whose frames end at ${at}`)
    return { block, hashes }
  }

  #rotate(first: number): void {
    const next = this.#create(join('seg', segmentName(first)), 0)
    const { fd } = this.#segment
    this.#held.delete(fd)
    this.#segment = next
    this.#options.disk.close(fd)
  }

  /** Signs the head over all that is durable: noted durably first, then published. Null if it is signed already. */
  sign(nowMs: number): Checkpoint | null {
    const { origin, signers } = this.#options
    const { frontier } = this.#found
    if (frontier.size === this.#signedSize) return null
    this.#makeRoom(0, 'closeout')
    const head = { origin, size: frontier.size, root: frontier.root() }
    const checkpoint = signCheckpoint(head, signers, nowMs)
    this.keep(checkpoint)
    this.#spent('closeout', 2 * checkpoint.note.length)
    return checkpoint
  }

  /** Notes a head over all that is durable, in checkpoints.log and then as the published one. */
  keep(checkpoint: Checkpoint): void {
    const { disk } = this.#options
    const record = Buffer.from(`${checkpoint.note}\n`)
    writeAll(disk, this.#notes.fd, record, this.#notes.bytes)
    disk.fdatasync(this.#notes.fd)
    this.#notes.bytes += record.length
    this.#publish(checkpoint)
    this.#signedSize = checkpoint.size
  }

  #publish(checkpoint: Checkpoint): void {
    const { directory, disk } = this.#options
    disk.replace(join(directory, 'checkpoint'), Buffer.from(checkpoint.note))
  }

  /** Takes a segment away that was let go of. Errors: prune.failed; the log itself is as it was. */
  remove(name: string): void {
    const { directory, disk } = this.#options
    const path = join(directory, 'seg', name)
    if (path === this.#segment.path)
      throw new AuditError('prune.failed', `${name} is the segment that is being written`)
    try {
      disk.remove(path)
      disk.syncDirectory(join(directory, 'seg'))
    } catch (cause) {
      throw unpruned(cause)
    }
  }

  /**
   * Goes on in the thinned heads, once they have what was signed since they were made: behind byte `end` of the present
   * ones. Errors: prune.failed (the present ones stay); others, of the new name that may not last, poison as any do.
   */
  adopt(end: number): void {
    const { directory, disk } = this.#options
    const { path } = this.#notes
    const thinned = thinnedPath(path)
    let next: Open | undefined
    try {
      // Opening the log anew takes them away: they may hold a head that was never durable.
      const { size } = statSync(thinned)
      next = { path, fd: disk.openAppend(thinned), bytes: size }
      const since = readBetween(path, end, this.#notes.bytes)
      writeAll(disk, next.fd, since, next.bytes)
      disk.fdatasync(next.fd)
      next.bytes += since.length
      disk.rename(thinned, path)
    } catch (cause) {
      if (next !== undefined) disk.close(next.fd)
      throw unpruned(cause)
    }
    const { fd } = this.#notes
    this.#held.delete(fd)
    this.#held.add(next.fd)
    this.#notes = next
    disk.close(fd)
    // Heads noted from now on are found by the new name alone: it is to last before there is one.
    disk.syncDirectory(directory)
  }

  /** Whether the open segment is still the file that its name leads to, as long as it was left. */
  watch(): Watched {
    const held = fstatSync(this.#segment.fd)
    const named = statSync(this.#segment.path, { throwIfNoEntry: false })
    let alarm: string | null = null
    if (named === undefined || held.nlink === 0) alarm = 'the open segment was unlinked'
    else if (named.ino !== held.ino) alarm = 'the open segment was replaced'
    else if (held.size < this.#segment.bytes) alarm = 'the open segment was shortened'
    this.#fill()
    const [closeout, breakglass] = [
      this.#reserve.left('closeout'),
      this.#reserve.left('breakglass'),
    ]
    const { missing } = this.#reserve
    return {
      alarm,
      freeBytes: this.#freeFor(null),
      reserve: { closeout, breakglass, missing },
    }
  }

  /** Closes the files, also after a failure. */
  close(): void {
    for (const fd of this.#held) {
      try {
        this.#options.disk.close(fd)
      } catch {
        // The descriptor may be poisoned; there is nothing left to save in it.
      }
    }
    // A number closed twice might by then be somebody else's file.
    this.#held.clear()
  }

  /** After a failed write: cuts back to what was durable, then recovers as if just started. */
  reopen(): Opened {
    this.close()
    const { disk } = this.#options
    // Pages of a failed sync may look written and not be: only what was synced before it counts.
    for (const open of [this.#segment, this.#notes])
      if (statSync(open.path).size > open.bytes) disk.truncate(open.path, open.bytes)
    return this.open()
  }
}
