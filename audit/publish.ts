/**
 * The log in the public format (c2sp.org/tlog-tiles), made from the log's own files when somebody asks: hash tiles and
 * entry bundles, full and partial. It reads what is durable and below a signed size, and nothing else.
 */
import { AuditError } from './errors.ts'
import { HashesKept } from './prove.ts'
import { LogReader } from './read.ts'
import { tilePath, tileWidth } from './tile.ts'
import { consistencyProof, type Hash } from './tree.ts'

/** What a path of the public format names. */
export interface TileName {
  /** `entries`: bodies. A number: hashes of that level of tiles. */
  readonly level: number | 'entries'
  readonly n: number
  /** How many of its 256 places are filled. */
  readonly width: number
}

/** `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`; null for a path that is none. */
export function parseTilePath(path: string): TileName | null {
  const match =
    /^tile\/(entries|[0-9]|[1-5][0-9]|6[0-3])((?:\/x\d{3})*\/\d{3})(?:\.p\/([1-9]\d{0,2}))?$/.exec(
      path,
    )
  if (match === null) return null
  const [, level = '', groups = '', partial] = match
  // No leading group of zeros: every number has one path.
  if (groups.startsWith('/x000')) return null
  const n = Number(groups.replaceAll(/[/x]/g, ''))
  const width = partial === undefined ? tileWidth : Number(partial)
  if (!Number.isSafeInteger(n) || (partial !== undefined && width >= tileWidth)) return null
  return { level: level === 'entries' ? level : Number(level), n, width }
}

/** The path of a tile; a partial one names its width. */
export function formatTilePath({ level, n, width }: TileName): string {
  return `${tilePath(level, n)}${width === tileWidth ? '' : `.p/${width}`}`
}

/** A log's files as tiles; keeps its place between questions. docs/audit.md section "The public format". */
export class Publisher {
  readonly #reader: LogReader
  /** Many ask about the newest head. */
  readonly #hashes: HashesKept

  constructor(directory: string, origin: string) {
    this.#reader = new LogReader(directory, origin)
    this.#hashes = new HashesKept(directory, this.#reader)
  }

  /**
   * The bytes of a tile, as the head of `size` leaves has it. Errors: log.range for a tile which that head does not
   * have.
   */
  tile(name: TileName, size: number): Uint8Array {
    const { level, n, width } = name
    const each = level === 'entries' ? 1 : tileWidth ** level
    const last = (n * tileWidth + width) * each
    if (!(last <= size))
      throw new AuditError('log.range', `${formatTilePath(name)} of ${size} events`)
    if (level === 'entries') return bundle(this.#reader, n * tileWidth, width)
    const perfect = this.#hashes.of(size)
    return Buffer.concat(
      Array.from({ length: width }, (_, i) => perfect(level * 8, n * tileWidth + i)),
    )
  }

  /** Hashes that show the tree of `size` to begin with the tree of `old`. Needs 0 <= old <= size. */
  consistency(old: number, size: number): Hash[] {
    return consistencyProof(this.#hashes.of(size), old, size)
  }
}

/** Each entry behind its length, a big-endian u16: an event has at most 32 KiB. */
function bundle(reader: LogReader, first: number, width: number): Uint8Array {
  const parts: Uint8Array[] = []
  for (const { idx, body } of reader.bodies(first)) {
    if (idx >= first + width) break
    const length = Buffer.alloc(2)
    length.writeUInt16BE(body.length)
    parts.push(length, body)
  }
  if (parts.length !== 2 * width)
    throw new AuditError('log.range', `event ${first + parts.length / 2} cannot be read`)
  return Buffer.concat(parts)
}

/** The bodies of an entry bundle; null where the bytes are not `width` whole entries. */
export function parseBundle(bytes: Uint8Array, width: number): Uint8Array[] | null {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const bodies: Uint8Array[] = []
  let at = 0
  while (bodies.length < width) {
    if (at + 2 > view.length) return null
    const end = at + 2 + view.readUInt16BE(at)
    if (end > view.length) return null
    bodies.push(view.subarray(at + 2, end))
    at = end
  }
  return at === view.length ? bodies : null
}
