/** ASN.1 string types to JavaScript strings and back. */
import { DerError, TAG, type DerPart } from './reader.ts'

/** Strict UTF-8: no overlong forms, surrogates or values above U+10FFFF. Throws DerError. */
export function decodeUtf8(bytes: Uint8Array): string {
  return decodeAscii(bytes, 0, bytes.length) ?? decodeWide(bytes)
}

/** ASCII as text; undefined for anything else, and for what is too long to be put together by the character. */
function decodeAscii(bytes: Uint8Array, from: number, to: number): string | undefined {
  if (to - from > SHORT) return undefined
  let text = ''
  for (let at = from; at < to; at++) {
    const byte = bytes[at] ?? 0
    if (byte > 0x7f) return undefined
    text += CHARACTERS[byte]
  }
  return text
}
const SHORT = 1_024
const CHARACTERS = Array.from({ length: 0x80 }, (_, code) => String.fromCharCode(code))

function decodeWide(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length;) {
    const { code, length } = decodeOne(bytes, at)
    text += String.fromCodePoint(code)
    at += length
  }
  return text
}

const FORMS = [
  { below: 0x80, length: 1, mask: 0x7f, least: 0 },
  { below: 0xc0, length: 0, mask: 0, least: 0 },
  { below: 0xe0, length: 2, mask: 0x1f, least: 0x80 },
  { below: 0xf0, length: 3, mask: 0x0f, least: 0x800 },
  { below: 0xf8, length: 4, mask: 0x07, least: 0x1_0000 },
] as const

function decodeOne(bytes: Uint8Array, at: number): { code: number; length: number } {
  const first = bytes[at] ?? 0
  const form = FORMS.find((row) => first < row.below)
  if (form === undefined || form.length === 0 || at + form.length > bytes.length)
    throw new DerError('text is not UTF-8', at)
  let code = first & form.mask
  for (let i = at + 1; i < at + form.length; i++) {
    const next = bytes[i] ?? 0
    if ((next & 0xc0) !== 0x80) throw new DerError('text is not UTF-8', i)
    code = code * 64 + (next & 0x3f)
  }
  if (code < form.least || code > 0x10_ffff || (code >= 0xd800 && code < 0xe000))
    throw new DerError('text is not UTF-8', at)
  return { code, length: form.length }
}

/** Text as UTF-8; lone surrogates become U+FFFD. */
export function encodeUtf8(text: string): Uint8Array {
  return asciiOf(text) ?? encodeWide(text)
}

/** The octets of ASCII; undefined for any other text. */
function asciiOf(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length)
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code > 0x7f) return undefined
    bytes[at] = code
  }
  return bytes
}

function encodeWide(text: string): Uint8Array {
  const bytes: number[] = []
  for (const character of text.toWellFormed()) {
    const code = character.codePointAt(0) ?? 0
    if (code < 0x80) bytes.push(code)
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), tail(code))
    else if (code < 0x1_0000) bytes.push(0xe0 | (code >> 12), tail(code >> 6), tail(code))
    else bytes.push(0xf0 | (code >> 18), tail(code >> 12), tail(code >> 6), tail(code))
  }
  return Uint8Array.from(bytes)
}

function tail(bits: number): number {
  return 0x80 | (bits & 0x3f)
}

/** ASCII text to bytes. Throws DerError for anything else: its callers write IA5String and PrintableString. */
export function encodeAscii(text: string): Uint8Array {
  const bytes = asciiOf(text)
  if (bytes === undefined) throw new DerError('text is not ASCII')
  return bytes
}

function narrow(bytes: Uint8Array, highest: number): string {
  const ascii = decodeAscii(bytes, 0, bytes.length)
  if (ascii !== undefined) return ascii
  let text = ''
  for (const byte of bytes) {
    if (byte > highest) throw new DerError('a character out of its string type')
    text += String.fromCharCode(byte)
  }
  return text
}

/** The text of an IA5String's contents, also where a context tag stands for its own. Throws DerError. */
export function ia5Text(bytes: Uint8Array): string {
  return narrow(bytes, 0x7f)
}

function wide(bytes: Uint8Array, width: 2 | 4): string {
  if (bytes.length % width !== 0) throw new DerError('a character is cut short')
  let text = ''
  for (let at = 0; at < bytes.length; at += width) {
    let code = 0
    for (let i = at; i < at + width; i++) code = code * 256 + (bytes[i] ?? 0)
    if (code > 0x10_ffff || (code >= 0xd800 && code < 0xe000))
      throw new DerError('a character out of its string type')
    text += String.fromCodePoint(code)
  }
  return text
}

const PRINTABLE = /^[A-Za-z0-9 '()+,\-./:=?]*$/

/** Whether PrintableString can hold this (X.680 41.4). */
export function isPrintable(text: string): boolean {
  return PRINTABLE.test(text)
}

function printable(bytes: Uint8Array): string {
  const text = narrow(bytes, 0x7f)
  if (!isPrintable(text)) throw new DerError('a character out of its string type')
  return text
}

function numeric(bytes: Uint8Array): string {
  const text = narrow(bytes, 0x7f)
  if (!/^[0-9 ]*$/.test(text)) throw new DerError('a character out of its string type')
  return text
}

const decoders: Readonly<Record<number, (bytes: Uint8Array) => string>> = {
  [TAG.utf8]: decodeUtf8,
  [TAG.printable]: printable,
  [TAG.ia5]: ia5Text,
  [TAG.numeric]: numeric,
  // T.61 in certificates is Latin-1 in practice (openssl, GnuTLS and NSS read it so).
  [TAG.teletex]: (bytes) => narrow(bytes, 0xff),
  [TAG.bmp]: (bytes) => wide(bytes, 2),
  [TAG.universal]: (bytes) => wide(bytes, 4),
}

/** The text of any ASN.1 string type a name may use; undefined if the node is no string. Throws DerError. */
export function textOf(node: DerPart): string | undefined {
  const { tag, source, from, to } = node
  const plain = tag === TAG.utf8 || tag === TAG.ia5 ? decodeAscii(source, from, to) : undefined
  return plain ?? decoders[tag]?.(node.value)
}
