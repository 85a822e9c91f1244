/**
 * age v1 files (age-encryption.org/v1): a key of their own for each, wrapped for every recipient, and the content in
 * chunks of which none can be changed, moved, left out or cut off. Whoever writes one cannot read it again.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  hkdfSync,
  timingSafeEqual,
} from 'node:crypto'
import { AuditError } from '../errors.ts'
import { agree, type Identity, type Recipient } from './keys.ts'

const VERSION = 'age-encryption.org/v1'
const WRAP = 'age-encryption.org/v1/X25519'
const FILE_KEY_BYTES = 16
const NONCE_BYTES = 16
const TAG_BYTES = 16
const CHUNK = 64 * 1024
/** Of a header: what is longer was not written by any age that we know. */
const MAX_HEADER = 16 * 1024
const CIPHER = 'chacha20-poly1305'
const OPTIONS = { authTagLength: TAG_BYTES } as const

/** A stanza that opens nothing: arguments under the header's own authentication. Other readers pass over it. */
export interface Mark {
  readonly type: string
  readonly args: readonly string[]
}

function hkdf(key: Uint8Array, salt: Uint8Array, info: string, bytes = 32): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, bytes))
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replaceAll('=', '')
}

/** Octets of unpadded base64 in its one canonical form. */
function unbase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64')
  return /^[A-Za-z0-9+/]*$/.test(text) && base64(bytes) === text ? bytes : undefined
}

/** The nonce of a chunk: an 11-octet count, and whether it is the last. */
function nonceOf(count: number, last: boolean): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUIntBE(count, 5, 6)
  nonce[11] = last ? 1 : 0
  return nonce
}

function encrypt(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array): Buffer {
  const cipher = createCipheriv(CIPHER, key, nonce, OPTIONS)
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

/** Undefined where the tag does not fit. */
function decrypt(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array): Buffer | undefined {
  if (sealed.length < TAG_BYTES) return undefined
  const cipher = createDecipheriv(CIPHER, key, nonce, OPTIONS)
  cipher.setAuthTag(sealed.subarray(-TAG_BYTES))
  const plain = cipher.update(sealed.subarray(0, -TAG_BYTES))
  try {
    return Buffer.concat([plain, cipher.final()])
  } catch {
    return undefined
  }
}

function wrap(fileKey: Uint8Array, { key }: Recipient, ephemeral: Uint8Array): string {
  const agreed = agree(ephemeral, key)
  if (agreed === undefined)
    throw new AuditError('recording.key', 'nothing can be sealed to this public key')
  const wrapKey = hkdf(agreed.shared, Buffer.concat([agreed.own, key]), WRAP)
  const body = encrypt(wrapKey, Buffer.alloc(12), fileKey)
  return `-> X25519 ${base64(agreed.own)}\n${base64(body)}\n`
}

/** Writes one file. Octets come out as soon as a chunk of 64 KiB is whole. */
export class Sealer {
  /** What the file begins with. */
  readonly header: Uint8Array
  readonly #key: Uint8Array
  readonly #chunk = Buffer.allocUnsafe(CHUNK)
  #filled = 0
  #chunks = 0

  /** `random` gives as many octets as asked for. Throws AuditError `recording.key`. */
  constructor(
    recipients: readonly Recipient[],
    marks: readonly Mark[],
    random: (bytes: number) => Uint8Array,
  ) {
    if (recipients.length === 0)
      throw new AuditError('recording.key', 'nobody is there to seal it to')
    const fileKey = random(FILE_KEY_BYTES)
    const stanzas = [
      ...recipients.map((recipient) => wrap(fileKey, recipient, random(32))),
      ...marks.map(({ type, args }) => `-> ${[type, ...args].join(' ')}\n\n`),
    ]
    const text = `${VERSION}\n${stanzas.join('')}---`
    const nonce = random(NONCE_BYTES)
    this.header = Buffer.concat([Buffer.from(`${text} ${macOf(fileKey, text)}\n`), nonce])
    this.#key = hkdf(fileKey, nonce, 'payload')
  }

  /** Takes content; gives what of the file is finished by it. A chunk is kept until it is known not to be the last. */
  push(bytes: Uint8Array): Uint8Array {
    const out: Buffer[] = []
    for (let at = 0; at < bytes.length;) {
      if (this.#filled === CHUNK) {
        out.push(encrypt(this.#key, nonceOf(this.#chunks++, false), this.#chunk))
        this.#filled = 0
      }
      const part = bytes.subarray(at, at + CHUNK - this.#filled)
      this.#chunk.set(part, this.#filled)
      this.#filled += part.length
      at += part.length
    }
    return out.length === 1 && out[0] !== undefined ? out[0] : Buffer.concat(out)
  }

  /** The last chunk, which is empty only where the content is. */
  end(): Uint8Array {
    return encrypt(this.#key, nonceOf(this.#chunks, true), this.#chunk.subarray(0, this.#filled))
  }
}

function macOf(fileKey: Uint8Array, text: string): string {
  const key = hkdf(fileKey, new Uint8Array(0), 'header')
  return base64(createHmac('sha256', key).update(text).digest())
}

interface Header {
  readonly stanzas: readonly { readonly args: readonly string[]; readonly body: Uint8Array }[]
  /** What is authenticated, and by what. */
  readonly text: string
  readonly mac: string
  /** Where the payload begins. */
  readonly end: number
}

function damaged(what: string): never {
  throw new AuditError('recording.sealed', `the file is not as it was sealed: ${what}`)
}

/** Reads a header strictly: one way to write each value, and no octet that means nothing. */
function readHeader(file: Uint8Array): Header {
  const latin = Buffer.from(file.subarray(0, MAX_HEADER)).toString('latin1')
  const lines = latin.split('\n')
  if (lines[0] !== VERSION) damaged('it does not begin like an age file')
  const stanzas: { args: readonly string[]; body: Uint8Array }[] = []
  let at = 1
  while (lines[at]?.startsWith('-> ') === true) {
    const args = (lines[at++] ?? '').slice(3).split(' ')
    if (args.some((arg) => !/^[\x21-\x7e]+$/.test(arg))) damaged('a stanza has odd arguments')
    let body = ''
    for (;;) {
      const line = lines[at++]
      if (line === undefined || line.length > 64) return damaged('a stanza does not end')
      body += line
      if (line.length < 64) break
    }
    stanzas.push({ args, body: unbase64(body) ?? damaged('a stanza is not base64') })
  }
  const [, mac] = /^--- ([A-Za-z0-9+/]{43})$/.exec(lines[at] ?? '') ?? []
  if (mac === undefined || stanzas.length === 0) damaged('its header does not end')
  const text = `${lines.slice(0, at).join('\n')}\n---`
  return { stanzas, text, mac: mac ?? '', end: text.length + 1 + 43 + 1 }
}

/** The key of the file, by the first identity that a stanza was made for. */
function unwrap({ stanzas }: Header, identities: readonly Identity[]): Uint8Array | undefined {
  for (const { args, body } of stanzas) {
    if (args[0] !== 'X25519') continue
    const share = unbase64(args[1] ?? '')
    if (args.length !== 2 || share?.length !== 32 || body.length !== FILE_KEY_BYTES + TAG_BYTES)
      damaged('an X25519 stanza has a wrong form')
    for (const { secret, recipient } of identities) {
      const agreed = agree(secret, share ?? new Uint8Array(32))
      if (agreed === undefined) return damaged('an X25519 stanza shares nothing')
      const key = hkdf(
        agreed.shared,
        Buffer.concat([share ?? new Uint8Array(0), recipient.key]),
        WRAP,
      )
      const opened = decrypt(key, Buffer.alloc(12), body)
      if (opened !== undefined) return opened
    }
  }
  return undefined
}

/** How many are named in the header as able to open the file. Throws `recording.sealed`. */
export function countRecipients(file: Uint8Array): number {
  return readHeader(file).stanzas.filter(({ args }) => args[0] === 'X25519').length
}

export interface Opened {
  readonly plain: Uint8Array
  readonly marks: readonly Mark[]
  /** False: the file ends before its last chunk, and `plain` is what was whole. Only where `torn` allows it. */
  readonly complete: boolean
}

/**
 * Opens a whole file. Throws AuditError `recording.identity` where none of the identities is meant, and
 * `recording.sealed` where any octet is not as it was written. `torn`: a file that was cut off is opened as far as
 * its whole chunks go.
 */
export function openSealed(
  file: Uint8Array,
  identities: readonly Identity[],
  { torn = false } = {},
): Opened {
  const header = readHeader(file)
  const fileKey = unwrap(header, identities)
  if (fileKey === undefined)
    throw new AuditError('recording.identity', 'the recording was not sealed to this key')
  const mac = Buffer.from(macOf(fileKey, header.text))
  if (!timingSafeEqual(mac, Buffer.from(header.mac))) damaged('its header was changed')
  const marks = header.stanzas
    .filter(({ args }) => args[0] !== 'X25519')
    .map(({ args: [type = '', ...args] }) => ({ type, args }))
  const nonce = file.subarray(header.end, header.end + NONCE_BYTES)
  const body = file.subarray(header.end + NONCE_BYTES)
  if (nonce.length < NONCE_BYTES || body.length === 0) {
    if (torn) return { plain: new Uint8Array(0), marks, complete: false }
    damaged('it ends before its content')
  }
  return { ...chunks(hkdf(fileKey, nonce, 'payload'), body, torn), marks }
}

function chunks(
  key: Uint8Array,
  body: Uint8Array,
  torn: boolean,
): { readonly plain: Uint8Array; readonly complete: boolean } {
  const step = CHUNK + TAG_BYTES
  const plain: Buffer[] = []
  for (let [at, count] = [0, 0]; at < body.length; at += step, count++) {
    const last = at + step >= body.length
    const sealed = body.subarray(at, at + step)
    const opened = decrypt(key, nonceOf(count, last), sealed)
    if (opened === undefined) {
      if (!torn) return damaged(`chunk ${count} was changed, moved or cut off`)
      // Cut off behind a whole chunk, or within one: nothing of what follows is known.
      const rest = last ? decrypt(key, nonceOf(count, false), sealed) : undefined
      return {
        plain: Buffer.concat(rest === undefined ? plain : [...plain, rest]),
        complete: false,
      }
    }
    if (last && opened.length === 0 && count > 0) damaged('it ends with an empty chunk')
    plain.push(opened)
  }
  return { plain: Buffer.concat(plain), complete: true }
}
