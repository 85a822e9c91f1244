/**
 * Frames of a segment file: 32 bytes of header, then one leaf's body. docs/audit.md section "On disk".
 *
 *     "SPA1" | u32 len | u32 crc32(the rest) | u32 0 | u64 idx | u64 batch | body      (little-endian)
 *
 * The header always holds NUL bytes and a body never does, so no text inside an event can pass for a frame.
 */
import { crc32 } from 'node:zlib'

export const headerBytes = 32
/** The longest body: 32 KiB. */
export const bodyLimit = 32 * 1024
const magic = 0x31415053 // "SPA1", read as a little-endian u32
const magicBytes: Uint8Array = Buffer.from('SPA1')

export interface Frame {
  readonly idx: number
  readonly batch: number
  /** A view, not a copy. */
  readonly body: Uint8Array
  /** Offset of the next frame. */
  readonly end: number
}

/** Notes the length of the body that stands behind the header at `offset`; the rest of the header is `sealFrame`'s. */
export function openFrame(into: Buffer, offset: number, length: number): void {
  into.writeUInt32LE(length, offset + 4)
}

/** Completes the header at `offset`, whose length and body are in place, and returns where the frame ends. */
export function sealFrame(into: Buffer, offset: number, idx: number, batch: number): number {
  const end = offset + headerBytes + into.readUInt32LE(offset + 4)
  into.writeUInt32LE(magic, offset)
  into.writeUInt32LE(0, offset + 12)
  writeIndex(into, offset + 16, idx)
  writeIndex(into, offset + 24, batch)
  into.writeUInt32LE(crc32(into.subarray(offset + 12, end)), offset + 8)
  return end
}

/** A u64 from a safe integer, without the detour over BigInt. */
function writeIndex(into: Buffer, offset: number, value: number): void {
  into.writeUInt32LE(value >>> 0, offset)
  into.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4)
}

function readIndex(bytes: Buffer, offset: number): number {
  return bytes.readUInt32LE(offset) + bytes.readUInt32LE(offset + 4) * 0x1_0000_0000
}

/** Why no frame stands at `offset`, in words (`cut short` when the bytes end first); null where one does. */
export function frameFault(bytes: Buffer, offset: number): string | null {
  if (offset + headerBytes > bytes.length) return 'cut short'
  if (bytes.readUInt32LE(offset) !== magic) return 'no frame begins here'
  const length = bytes.readUInt32LE(offset + 4)
  if (length === 0 || length > bodyLimit) return 'impossible length'
  const end = offset + headerBytes + length
  if (end > bytes.length) return 'cut short'
  if (bytes.readUInt32LE(offset + 12) !== 0) return 'reserved field is not zero'
  if (crc32(bytes.subarray(offset + 12, end)) !== bytes.readUInt32LE(offset + 8)) return 'checksum'
  return null
}

/** Where the frame at `offset`, which has no fault, ends. */
export function frameEnd(bytes: Buffer, offset: number): number {
  return offset + headerBytes + bytes.readUInt32LE(offset + 4)
}
/** Its index. */
export function frameIdx(bytes: Buffer, offset: number): number {
  return readIndex(bytes, offset + 16)
}
/** The batch it was written with. */
export function frameBatch(bytes: Buffer, offset: number): number {
  return readIndex(bytes, offset + 24)
}

/** Reads the frame at `offset`; a string says in words why there is none. */
export function readFrame(bytes: Buffer, offset: number): Frame | string {
  const fault = frameFault(bytes, offset)
  if (fault !== null) return fault
  const end = frameEnd(bytes, offset)
  return {
    idx: frameIdx(bytes, offset),
    batch: frameBatch(bytes, offset),
    body: bytes.subarray(offset + headerBytes, end),
    end,
  }
}

/** The valid frames that begin anywhere at or after `offset`, overlapping garbage ignored. */
export function* framesAfter(bytes: Buffer, offset: number): Generator<Frame> {
  let at = bytes.indexOf(magicBytes, offset)
  while (at !== -1) {
    const frame = readFrame(bytes, at)
    if (typeof frame === 'string') at = bytes.indexOf(magicBytes, at + 1)
    else {
      yield frame
      at = bytes.indexOf(magicBytes, frame.end)
    }
  }
}

/** `seg/<first idx, 20 digits>.aud` */
export function segmentName(first: number): string {
  return `${String(first).padStart(20, '0')}.aud`
}

/** The first idx a segment's name promises; null for a file that is no segment. */
export function segmentFirst(name: string): number | null {
  return /^\d{20}\.aud$/.test(name) ? Number(name.slice(0, 20)) : null
}
