/**
 * How far a sink has everything, kept through a crash: two slots of 64 bytes written in turn, so that a torn write
 * spoils at most the newer one.
 *
 *     "SPC1" | u32 crc32(the rest) | u64 generation | u64 idx | 40 bytes of zero   (little-endian)
 */
import * as fs from 'node:fs'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'

const slotBytes = 64
const magic = 0x31435053

export interface Slot {
  readonly generation: number
  /** The next index to ship. */
  readonly idx: number
}

export function encodeSlot({ generation, idx }: Slot): Buffer {
  const bytes = Buffer.alloc(slotBytes)
  bytes.writeUInt32LE(magic, 0)
  bytes.writeBigUInt64LE(BigInt(generation), 8)
  bytes.writeBigUInt64LE(BigInt(idx), 16)
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4)
  return bytes
}

/** The newer of the two slots that are whole; null when neither is. */
export function decodeSlots(bytes: Buffer): Slot | null {
  let best: Slot | null = null
  for (const at of [0, slotBytes]) {
    const slot = bytes.subarray(at, at + slotBytes)
    if (slot.length < slotBytes || slot.readUInt32LE(0) !== magic) continue
    if (crc32(slot.subarray(8)) !== slot.readUInt32LE(4)) continue
    const found = {
      generation: Number(slot.readBigUInt64LE(8)),
      idx: Number(slot.readBigUInt64LE(16)),
    }
    if (best === null || found.generation > best.generation) best = found
  }
  return best
}

/**
 * A cursor file. Unreadable, absent, or past the log's `size` (it belongs to another log), it says 0: everything is
 * sent again rather than anything lost.
 */
export class Cursor {
  idx: number
  #generation: number
  readonly #fd: number

  constructor(path: string, size: number) {
    fs.mkdirSync(dirname(path), { recursive: true })
    this.#fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
    const bytes = Buffer.alloc(2 * slotBytes)
    const length = fs.readSync(this.#fd, bytes, 0, bytes.length, 0)
    const slot = decodeSlots(bytes.subarray(0, length))
    this.idx = slot !== null && slot.idx <= size ? slot.idx : 0
    this.#generation = slot?.generation ?? 0
  }

  /** Durable when it resolves; never goes back. */
  async advance(idx: number): Promise<void> {
    if (idx <= this.idx) return
    const generation = this.#generation + 1
    const at = (generation % 2) * slotBytes
    fs.writeSync(this.#fd, encodeSlot({ generation, idx }), 0, slotBytes, at)
    await new Promise<void>((resolve, reject) => {
      fs.fdatasync(this.#fd, (error) => (error === null ? resolve() : reject(error)))
    })
    this.#generation = generation
    this.idx = idx
  }

  close(): void {
    fs.closeSync(this.#fd)
  }
}

/** Where a sink's cursor stands, without opening it for writing; null when there is none that holds. */
export function cursorOf(path: string): number | null {
  if (!fs.existsSync(path)) return null
  return decodeSlots(fs.readFileSync(path))?.idx ?? null
}
