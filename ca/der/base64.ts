/** EST bodies (RFC 7030 4, RFC 8951 3): base64 of DER, as tolerant in spaces as it is strict in bits. */

/** After white space is gone: RFC 7468 armour of any label. */
const ARMOUR = /^-----BEGIN([A-Z0-9#]{1,40})-----([A-Za-z0-9+/=]*)-----END\1-----$/

/**
 * Decodes a body: any ASCII white space, optional PEM armour, canonical padding, nothing else.
 * Undefined if it is not base64. The caller has bounded its length.
 */
export function decodeBody(body: string): Uint8Array | undefined {
  const text = body.replace(/[\t\n\r ]+/g, '')
  const dense = ARMOUR.exec(text)?.[2] ?? text
  if (dense === '') return undefined
  try {
    // `strict` wants full padding and zero pad bits; other decoders swallow garbage.
    return Uint8Array.fromBase64(dense, { lastChunkHandling: 'strict' })
  } catch {
    return undefined
  }
}

/** 64 columns, LF, exactly one final LF. */
export function encodeBody(der: Uint8Array): string {
  return `${der.toBase64().replace(/.{64}(?=.)/g, '$&\n')}\n`
}

/** PEM with this label. */
export function encodePem(label: string, der: Uint8Array): string {
  return `-----BEGIN ${label}-----\n${encodeBody(der)}-----END ${label}-----\n`
}
