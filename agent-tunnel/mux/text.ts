/** UTF-8 and product codes, strictly, for a room that has no TextDecoder. RFC 3629. */
import { MuxError } from './errors.ts'

/** The UTF-8 of `text`; a lone surrogate becomes U+FFFD. */
export function utf8(text: string): Uint8Array {
  const out = new Uint8Array(text.length * 3)
  let at = 0
  for (const character of text) {
    const point = character.codePointAt(0) ?? 0
    const code = point >= 0xd800 && point <= 0xdfff ? 0xfffd : point
    if (code < 0x80) out[at++] = code
    else {
      const more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3
      out[at++] = (code >> (6 * more)) | ((0xff00 >> (more + 1)) & 0xff)
      for (let left = more - 1; left >= 0; left--) out[at++] = 0x80 | ((code >> (6 * left)) & 0x3f)
    }
  }
  return out.slice(0, at)
}

/** As `utf8`, cut to at most `most` octets at a character's edge. */
export function utf8Within(text: string, most: number): Uint8Array {
  const all = utf8(text)
  if (all.length <= most) return all
  let end = most
  while (end > 0 && ((all[end] ?? 0) & 0xc0) === 0x80) end--
  return all.slice(0, end)
}

// By lead octet: how many follow, and the least code point that needs so many (no overlong forms).
const least = [0, 0x80, 0x800, 0x10000]
function following(lead: number): number {
  if (lead < 0x80) return 0
  if (lead >= 0xc2 && lead < 0xe0) return 1
  if (lead >= 0xe0 && lead < 0xf0) return 2
  if (lead >= 0xf0 && lead < 0xf5) return 3
  return -1
}

/** The text of valid UTF-8; throws MuxError `frame.malformed` otherwise. */
export function fromUtf8(bytes: Uint8Array): string {
  let text = ''
  let at = 0
  while (at < bytes.length) {
    const lead = bytes[at++] ?? 0
    const more = following(lead)
    if (more < 0 || at + more > bytes.length) throw notText()
    let code = more === 0 ? lead : lead & (0x3f >> more)
    for (let left = more; left > 0; left--) {
      const next = bytes[at++] ?? 0
      if ((next & 0xc0) !== 0x80) throw notText()
      code = (code << 6) | (next & 0x3f)
    }
    if (code < (least[more] ?? 0) || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      throw notText()
    }
    text += String.fromCodePoint(code)
  }
  return text
}

function notText(): MuxError {
  return new MuxError('frame.malformed', 'remote', 'not UTF-8')
}

const shape = /^[a-z0-9._-]{1,64}$/

/** Whether a string may be the code of REFUSE, RESET and GOAWAY: 1 to 64 of `a-z 0-9 . _ -`. */
export function isCode(code: string): boolean {
  return shape.test(code)
}
