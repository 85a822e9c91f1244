/** EST bodies (RFC 7030 4, RFC 8951 3): base64 of DER, as tolerant in spaces as it is strict in bits. */

const ARMOUR = /^-----BEGIN ([A-Z0-9 #]{1,40})-----\s([\s\S]*?)-----END \1-----$/

/**
 * Decodes a body: any white space, optional PEM armour, canonical padding, nothing else.
 * Undefined if it is not base64. The caller has bounded its length.
 */
export function decodeBody(body: string): Uint8Array | undefined {
  const text = body.trim()
  const inner = ARMOUR.exec(text)?.[2] ?? text
  const dense = inner.replace(/[\t\n\r ]+/g, '')
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
