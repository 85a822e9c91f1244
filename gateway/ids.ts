/** Names for things that happen once: a letter, and 128 random bits in lower-case Crockford base 32. */
import { randomBytes } from 'node:crypto'

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** `g` grant, `s` session, `d` decision, `r` request, `b` browser session of a web app. */
export type IdKind = 'g' | 's' | 'd' | 'r' | 'b'

export function newId(kind: IdKind, random: (bytes: number) => Uint8Array = randomBytes): string {
  return `${kind}_${encode(random(16))}`
}

/** 16 octets as 26 characters: 130 bits, the first two zero. */
function encode(octets: Uint8Array): string {
  let value = 0n
  for (const octet of octets) value = (value << 8n) | BigInt(octet)
  let text = ''
  for (let at = 0; at < 26; at++) {
    text = (ALPHABET[Number(value & 31n)] ?? '') + text
    value >>= 5n
  }
  return text
}
