/** EST bodies: base64 in lines, and the certs-only envelope. */
import { decodeBody, encodeBody } from '../der/base64.ts'
import { readCertsOnly } from '../der/cms.ts'
import { DerError } from '../der/reader.ts'
import { EstError } from './errors.ts'

/** An answer beyond this is not a handful of certificates. */
const LONGEST = 262_144

/** Base64 in 64 columns with one final LF. */
export function encodeEstBody(der: Uint8Array): string {
  return encodeBody(der)
}

/** The certificates (DER, as sent) of a base64 certs-only PKCS#7. Throws EstError `response.body`. */
export function parseCertsOnly(body: string): readonly Uint8Array[] {
  const der = body.length > LONGEST ? undefined : decodeBody(body)
  if (der === undefined) throw new EstError('response.body', 'the answer is not base64')
  try {
    return readCertsOnly(der)
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw new EstError('response.body', `the answer is no certs-only PKCS#7: ${cause.message}`, {
      cause,
    })
  }
}
