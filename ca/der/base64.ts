/** EST bodies (RFC 7030 4, RFC 8951 3): base64 of DER, as tolerant in spaces as it is strict in bits. */

const COLUMNS = 64

/** After white space is gone: RFC 7468 armour of any label. */
const ARMOUR = /^-----BEGIN([A-Z0-9#]{1,40})-----([A-Za-z0-9+/=]*)-----END\1-----$/

/**
 * Decodes a body: any ASCII white space, optional PEM armour, canonical padding, nothing else.
 * Undefined if it is not base64. The caller has bounded its length.
 */
export function decodeBody(body: string): Uint8Array | undefined {
  // The decoder skips white space by itself, form feeds too, which are none of ours.
  if (body.includes('\f')) return undefined
  if (!body.includes('-')) return decode(body)
  const text = body.replace(/[\t\n\r ]+/g, '')
  return decode(ARMOUR.exec(text)?.[2] ?? text)
}

const STRICT = { lastChunkHandling: 'strict' } as const

function decode(text: string): Uint8Array | undefined {
  try {
    // `strict` wants full padding and zero pad bits; other decoders swallow garbage.
    const bytes = Uint8Array.fromBase64(text, STRICT)
    return bytes.length === 0 ? undefined : bytes
  } catch {
    return undefined
  }
}

const [OTHER, SPACE, PAD, DASH] = [-1, -2, -3, -4]
/** What each octet stands for: six bits, or one of the above. */
const VALUES = new Int8Array(256).fill(OTHER)
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
for (let at = 0; at < DIGITS.length; at++) VALUES[DIGITS.charCodeAt(at)] = at
for (const character of '\t\n\r ') VALUES[character.charCodeAt(0)] = SPACE
VALUES['='.charCodeAt(0)] = PAD
VALUES['-'.charCodeAt(0)] = DASH

/** OTHER also where there is nothing any more. */
function valueAt(body: Uint8Array, at: number): number {
  return VALUES[body[at] ?? 0] ?? OTHER
}

/**
 * The same of a body as it came, an octet a character, without a string of it. One small loop: after every
 * signature the processor has forgotten our code, and fetches this faster than three calls.
 */
export function decodeOctets(body: Uint8Array): Uint8Array | undefined {
  const bytes = new Uint8Array((body.length >> 2) * 3 + 3)
  let [length, held, count, pads] = [0, 0, 0, 0]
  for (let at = 0; at < body.length; at++) {
    const value = valueAt(body, at)
    if ((count & 3) === 0 && pads === 0) {
      // Between two ends of lines everything comes in fours.
      const four =
        (value << 18) |
        (valueAt(body, at + 1) << 12) |
        (valueAt(body, at + 2) << 6) |
        valueAt(body, at + 3)
      // One that stands for no six bits is negative, and so is the whole.
      if (four >= 0) {
        bytes[length] = four >> 16
        bytes[length + 1] = four >> 8
        bytes[length + 2] = four
        length += 3
        count += 4
        at += 3
        continue
      }
    }
    if (value >= 0 && pads === 0) {
      held = (held << 6) | value
      if ((++count & 3) !== 0) continue
      bytes[length] = held >> 16
      bytes[length + 1] = held >> 8
      bytes[length + 2] = held
      length += 3
      held = 0
    } else if (value === PAD) pads++
    // Armour is rare, and somebody else's matter.
    else if (value === DASH) return decodeBody(latin1(body))
    else if (value !== SPACE) return undefined
  }
  const left = count & 3
  // RFC 4648 3.2, 3.5: as many pads as octets are missing, and no bit set that stands for none.
  if (count === 0 || left === 1 || pads !== ((4 - left) & 3)) return undefined
  held <<= pads * 6
  if ((held & ((1 << (pads * 8)) - 1)) !== 0) return undefined
  for (let shift = 16; shift >= pads * 8 && left > 0; shift -= 8) bytes[length++] = held >> shift
  return bytes.subarray(0, length)
}

/** One character per octet, so that no decoder repairs what is not base64. */
function latin1(body: Uint8Array): string {
  let text = ''
  for (const octet of body) text += String.fromCharCode(octet)
  return text
}

/** 64 columns, LF, exactly one final LF. */
export function encodeBody(der: Uint8Array): string {
  const text = der.toBase64()
  let lines = ''
  for (let at = 0; at < text.length; at += COLUMNS) lines += `${text.slice(at, at + COLUMNS)}\n`
  return lines === '' ? '\n' : lines
}

/** PEM with this label. */
export function encodePem(label: string, der: Uint8Array): string {
  return `-----BEGIN ${label}-----\n${encodeBody(der)}-----END ${label}-----\n`
}
