/** Serial numbers: 126 random bits, positive, always 16 octets (RFC 5280 4.1.2.2 wants 1 to 20, unguessable). */
import { CaError } from './errors.ts'
import type { Random } from './time.ts'

/** 16 octets, top bits 01: never negative, never shortened by DER. */
export function newSerial(random: Random): Uint8Array {
  const serial = Uint8Array.from(random(16))
  if (serial.length !== 16)
    throw new CaError('internal', 'local', 'the random source gave too little')
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
  return serial
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
