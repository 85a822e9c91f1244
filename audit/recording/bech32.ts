/** Bech32 (BIP 173) as age writes keys: 32 octets behind a prefix, with a checksum that finds slips of the hand. */
import { AuditError } from '../errors.ts'

const ALPHABET = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3]
const CHECKSUM = 6

function polymod(values: readonly number[]): number {
  let sum = 1
  for (const value of values) {
    const top = sum >>> 25
    sum = ((sum & 0x1ffffff) << 5) ^ value
    for (const [bit, generator] of GENERATOR.entries()) if ((top >>> bit) & 1) sum ^= generator
  }
  return sum >>> 0
}

function expand(prefix: string): number[] {
  const codes = Array.from(prefix, (letter) => letter.charCodeAt(0))
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)]
}

/** Groups of `from` bits as groups of `to`; undefined where what is left over is more than padding of zeros. */
function regroup(
  values: Iterable<number>,
  from: number,
  to: number,
  pad: boolean,
): number[] | undefined {
  const out: number[] = []
  let [held, bits] = [0, 0]
  for (const value of values) {
    held = ((held << from) | value) & 0xfff
    bits += from
    while (bits >= to) {
      bits -= to
      out.push((held >> bits) & ((1 << to) - 1))
    }
  }
  if (pad && bits > 0) out.push((held << (to - bits)) & ((1 << to) - 1))
  if (!pad && (bits >= from || (held & ((1 << bits) - 1)) !== 0)) return undefined
  return out
}

/** `bytes` behind `prefix`, which is in lower case, as the text is. */
export function toBech32(prefix: string, bytes: Uint8Array): string {
  const data = regroup(bytes, 8, 5, true) ?? []
  const zeros = Array.from({ length: CHECKSUM }, () => 0)
  const sum = polymod([...expand(prefix), ...data, ...zeros]) ^ 1
  const check = zeros.map((_, at) => (sum >>> (5 * (CHECKSUM - 1 - at))) & 31)
  return `${prefix}1${[...data, ...check].map((value) => ALPHABET[value]).join('')}`
}

/** The octets behind `prefix`. Throws AuditError `recording.key`: another prefix, mixed case, a wrong checksum. */
export function fromBech32(prefix: string, text: string): Uint8Array {
  const refuse = (why: string): never => {
    throw new AuditError('recording.key', `this is no key of the kind ${prefix}1…: ${why}`)
  }
  const lower = text.toLowerCase()
  if (text !== lower && text !== text.toUpperCase()) refuse('upper and lower case are mixed')
  if (lower.length > 256 || !lower.startsWith(`${prefix}1`)) refuse('it begins otherwise')
  const values = Array.from(lower.slice(prefix.length + 1), (letter) => ALPHABET.indexOf(letter))
  if (values.length < CHECKSUM || values.includes(-1)) refuse('it has a letter no key has')
  if (polymod([...expand(prefix), ...values]) !== 1) refuse('its checksum is wrong')
  const bytes = regroup(values.slice(0, -CHECKSUM), 5, 8, false)
  return bytes === undefined ? refuse('its end is not padding') : Uint8Array.from(bytes)
}
