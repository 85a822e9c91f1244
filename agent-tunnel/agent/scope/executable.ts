/**
 * The file a process runs: its identity, its path where the path is true, its SHA-256. Everything
 * goes through /proc/PID/exe, which opens the running file itself; a path that was replaced after the
 * start, or that means another file in the process's own mount namespace, cannot lie through it.
 */
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { promisify, TextDecoder } from 'node:util'

/** What is known of a running file. `id` is null when not even that may be seen. */
export interface Executable {
  readonly id: string | null
  readonly path: string | null
  readonly sha256: string | null
}

/** Larger files are not hashed: their sha256 is unseen. */
const MAX_HASHED_BYTES = 1024 * 1024 * 1024
/** Policy strings end at 1 KB; a longer path is unseen, not cut. */
const MAX_PATH_BYTES = 1000
const MAX_CONTENT_BYTES = 16n * 1024n * 1024n
const CACHE_ENTRIES = 256
const READ_BYTES = 128 * 1024
/** open(2); the same on every architecture Node runs on under Linux. */
const O_PATH = 0o10000000
/** A lease (fcntl(2)) lets a file's owner hold up whoever opens it, for 45 s; not who opens it like this. */
const O_READ = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK
/**
 * A change within the same tick of the kernel's clock, or the two seconds of a file system that counts so, leaves the
 * ctime as it was: what was changed so lately is read each time.
 */
const SETTLED_MS = 2500

// Not node:fs/promises: that is 1.8 MiB of Node which an agent has no other use for.
const stat = promisify<fs.PathLike, { bigint: true }, BigIntStats>(fs.stat)
const fstat = promisify<number, { bigint: true }, BigIntStats>(fs.fstat)
const read = promisify(fs.read)
const close = promisify(fs.close)
const openFile = promisify<fs.PathLike, string | number, number>(fs.open)

/** An open file, closed with its block. */
class File implements AsyncDisposable {
  readonly fd: number
  constructor(fd: number) {
    this.fd = fd
  }
  stat(): Promise<BigIntStats> {
    return fstat(this.fd, { bigint: true })
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await close(this.fd)
  }
}

async function open(path: fs.PathLike, flags: string | number): Promise<File> {
  return new File(await openFile(path, flags))
}

/**
 * A file's identity and state. The ctime is in it because the owner of a file can set its mtime back
 * after an edit, but only root (through the system clock) its ctime.
 */
function idOf(stats: BigIntStats): string {
  return [stats.dev, stats.ino, stats.mtimeNs, stats.ctimeNs, stats.size].join(':')
}

/** The identity of the file behind `link` now, or null when it may not be seen. */
export async function identify(link: string): Promise<string | null> {
  try {
    return idOf(await stat(link, { bigint: true }))
  } catch {
    return null
  }
}

/** Reads executables of processes; remembers hashes by identity. */
export class Executables {
  readonly #hashes = new Map<string, Promise<string | null>>()
  readonly #now: () => number

  /** `now`: the clock that files are stamped by, epoch ms. */
  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  /**
   * Looks at `link` (a /proc/PID/exe). Fields that may not be seen are null; a file that changed
   * while it was read has no sha256.
   */
  async look(link: string): Promise<Executable> {
    const shown = shownPath(link)
    const [id, there] = await Promise.all([identify(link), shown === null ? null : identify(shown)])
    if (id === null) return { id, path: null, sha256: null }
    return { id, path: there === id ? shown : null, sha256: await this.#running(link, id) }
  }

  /** The hash of the running file `id`; read only where it is not remembered. */
  async #running(link: string, id: string): Promise<string | null> {
    const known = this.#known(id)
    if (known !== undefined) return known
    try {
      await using file = await open(link, O_READ)
      const stats = await file.stat()
      return idOf(stats) === id ? await this.#hash(file, stats) : null
    } catch {
      // Readable path, unreadable file (mode 0711): the path was proven by identity all the same.
      return null
    }
  }

  /**
   * SHA-256 of a regular file of 1 octet to 16 MiB that a process names; null of anything else. The kernel's own files
   * (/proc) have no size: reading them may wait, never end, or take what others wanted to read.
   */
  async content(path: Buffer): Promise<string | null> {
    let named: File
    try {
      const stats = await stat(path, { bigint: true })
      if (!isContent(stats)) return null
      const known = this.#known(idOf(stats))
      if (known !== undefined) return await known
      // Not opened before it is known to be a file: a device or a pipe may not even be touched.
      named = await open(path, O_PATH)
    } catch {
      return null
    }
    try {
      const stats = await named.stat()
      if (!isContent(stats)) return null
      await using file = await open(`/proc/self/fd/${named.fd}`, O_READ)
      return await this.#hash(file, stats)
    } catch {
      return null
    } finally {
      await close(named.fd)
    }
  }

  #known(id: string): Promise<string | null> | undefined {
    const known = this.#hashes.get(id)
    if (known === undefined) return undefined
    this.#hashes.delete(id)
    this.#hashes.set(id, known)
    return known
  }

  #hash(file: File, stats: BigIntStats): Promise<string | null> {
    const id = idOf(stats)
    const known = this.#known(id)
    if (known !== undefined) return known
    if (stats.size > MAX_HASHED_BYTES) return Promise.resolve(null)
    const settled = Math.abs(this.#now() - Number(stats.ctimeMs)) > SETTLED_MS
    const hash = hashOf(file, stats)
    if (!settled) return hash
    this.#hashes.set(id, hash)
    const oldest = this.#hashes.keys().next().value
    if (this.#hashes.size > CACHE_ENTRIES && oldest !== undefined) this.#hashes.delete(oldest)
    // A failed read must not be remembered as the file's answer.
    void hash.then((value) => value === null && this.#hashes.delete(id))
    return hash
  }
}

function isContent(stats: BigIntStats): boolean {
  return stats.isFile() && stats.size > 0n && stats.size <= MAX_CONTENT_BYTES
}

/** SHA-256 of an open file, hex; null when it could not be read, is longer than it says or is not the same file state after. */
async function hashOf(file: File, stats: BigIntStats): Promise<string | null> {
  const hash = createHash('sha256')
  const chunk = Buffer.allocUnsafe(READ_BYTES)
  let at = 0
  try {
    for (;;) {
      const { bytesRead } = await read(file.fd, chunk, 0, chunk.length, at)
      if (bytesRead === 0) break
      hash.update(chunk.subarray(0, bytesRead))
      at += bytesRead
      if (at > stats.size) return null
    }
    if (idOf(await file.stat()) !== idOf(stats)) return null
  } catch {
    return null
  }
  return hash.digest('hex')
}

/**
 * The path the kernel shows, before it is known whether it leads, from here, to the file that runs. A
 * deleted or replaced file, a chroot or a mount namespace of its own make it lead elsewhere.
 */
function shownPath(link: string): string | null {
  try {
    const shown = fs.readlinkSync(link, { encoding: 'buffer' })
    if (shown.length > MAX_PATH_BYTES) return null
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(shown)
  } catch {
    return null
  }
}
