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
  if (!body.includes('-') && !body.includes('\f')) return decode(body)
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
