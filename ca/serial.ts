/** Serial numbers: 126 random bits, positive, always 16 octets (RFC 5280 4.1.2.2 wants 1 to 20, unguessable). */
import { CaError } from './errors.ts'
import type { Random } from './time.ts'

const LENGTH = 16
/** Serials drawn at once: asking the source costs more than all that is done with the answer. */
const DRAWN = 64

interface Pool {
  readonly bytes: Uint8Array
  next: number
}
const pools = new WeakMap<Random, Pool>()

/**
 * 16 octets, top bits 01: never negative, never shortened by DER. No octet of the source is used
 * twice. Throws CaError `internal` when it gives too little.
 */
export function newSerial(random: Random): Uint8Array {
  let pool = pools.get(random)
  if (pool === undefined || pool.next === pool.bytes.length) {
    pool = draw(random)
    pools.set(random, pool)
  }
  const { bytes, next } = pool
  pool.next = next + LENGTH
  const serial = bytes.subarray(next, next + LENGTH)
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
  return serial
}

function draw(random: Random): Pool {
  const bytes = new Uint8Array(random(LENGTH * DRAWN))
  if (bytes.length !== LENGTH * DRAWN)
    throw new CaError('internal', 'local', 'the random source gave too little')
  return { bytes, next: 0 }
}

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** Crockford's base32, lower case, unpadded: 16 bytes become 26 characters, 20 become 32. */
export function base32(bytes: Uint8Array): string {
  let text = ''
  let [held, bits] = [0, 0]
  for (const byte of bytes) {
    held = ((held << 8) | byte) & 0xfff
    bits += 8
    for (; bits >= 5; bits -= 5) text += ALPHABET[(held >> (bits - 5)) & 31]
  }
  return bits > 0 ? text + ALPHABET[(held << (5 - bits)) & 31] : text
}
