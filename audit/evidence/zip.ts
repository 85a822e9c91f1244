/** A ZIP whose every byte follows from its contents: names sorted, one date, no comments (PKWARE APPNOTE 4.3). */
import { hash } from 'node:crypto'
import { crc32, deflateRawSync } from 'node:zlib'

export interface Packed {
  readonly name: string
  readonly bytes: Uint8Array
  readonly packed: Uint8Array
}

/** What the manifest says of an entry. */
export interface Listed {
  readonly name: string
  readonly size: number
  readonly sha256: string
  readonly packed_sha256: string
}

const utf8Names = 0x0800
const dosDate = 0x0021 // 1980-01-01
const limit = 0xffff_ffff

export function packEntry(name: string, content: Uint8Array | string): Packed {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  const deflated = deflateRawSync(bytes, { level: 6 })
  return { name, bytes, packed: deflated.length < bytes.length ? deflated : bytes }
}

export function listed({ name, bytes, packed }: Packed): Listed {
  return {
    name,
    size: bytes.length,
    sha256: hash('sha256', bytes),
    packed_sha256: hash('sha256', packed),
  }
}

function numbers(fields: readonly (readonly [size: 2 | 4, value: number])[]): Buffer {
  const bytes = Buffer.alloc(fields.reduce((sum, [size]) => sum + size, 0))
  let at = 0
  for (const [size, value] of fields) at = bytes.writeUIntLE(value, at, size)
  return bytes
}

function facts({ name, bytes, packed }: Packed): [2 | 4, number][] {
  return [
    [2, 20],
    [2, utf8Names],
    [2, packed === bytes ? 0 : 8],
    [2, 0],
    [2, dosDate],
    [4, crc32(bytes)],
    [4, packed.length],
    [4, bytes.length],
    [2, Buffer.byteLength(name)],
    [2, 0],
  ]
}

/** The whole file. Errors: RangeError for more than a ZIP without its 64-bit fields can hold. */
export function zipOf(entries: readonly Packed[]): Buffer {
  const parts: Uint8Array[] = []
  const directory: Uint8Array[] = []
  let at = 0
  const sorted = entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  for (const entry of sorted) {
    const name = Buffer.from(entry.name)
    const header = numbers([[4, 0x04034b50], ...facts(entry)])
    directory.push(
      numbers([[4, 0x02014b50], [2, 20], ...facts(entry), [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]),
      name,
    )
    parts.push(header, name, entry.packed)
    at += header.length + name.length + entry.packed.length
    if (at > limit || entry.bytes.length > limit)
      throw new RangeError('a package of over 4 GiB: ask for a shorter time')
  }
  const listing = Buffer.concat(directory)
  const count = sorted.length
  const end = numbers([
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, count],
    [2, count],
    [4, listing.length],
    [4, at],
    [2, 0],
  ])
  return Buffer.concat([...parts, listing, end])
}
