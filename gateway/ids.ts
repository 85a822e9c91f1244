/** Names for things that happen once: a letter, and 128 random bits in lower-case Crockford base 32. */
import { randomBytes } from 'node:crypto'

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** `g` grant, `s` session, `d` decision, `r` request, `b` browser session of a web app, `l` lock, `i` invitation, `o` rollout, `v` service. */
export type IdKind = 'g' | 's' | 'd' | 'r' | 'b' | 'l' | 'i' | 'o' | 'v'

export function newId(kind: IdKind, random: (bytes: number) => Uint8Array = pooled): string {
  return `${kind}_${encode(random(16))}`
}

/** Octets drawn beforehand, each given once: asking for them costs more than all that is done with them. */
let pool = { bytes: new Uint8Array(0), next: 0 }
const DRAWN = 1_024

function pooled(count: number): Uint8Array {
  if (pool.next + count > pool.bytes.length) pool = { bytes: randomBytes(DRAWN), next: 0 }
  const from = pool.next
  pool.next += count
  return pool.bytes.subarray(from, pool.next)
}

/** 16 octets as 26 characters: 130 bits, the first two zero. */
function encode(octets: Uint8Array): string {
  let text = ''
  let [held, bits] = [0, 2]
  for (const octet of octets) {
    held = ((held << 8) | octet) & 0xfff
    bits += 8
    for (; bits >= 5; bits -= 5) text += ALPHABET[(held >> (bits - 5)) & 31]
  }
  return text
}
