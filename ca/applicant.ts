/** Who holds the key and what they ask for: steps 2, 3 and 5 of a CSR's life (docs/issuance.md). */
import { timingSafeEqual } from 'node:crypto'
import { provePossession, readCsr, type CertificationRequest } from './csr.ts'
import { decodeOctets } from './der/base64.ts'
import { encodeUtf8 } from './der/text.ts'
import { refuse } from './errors.ts'
import type { Linking } from './label.ts'

/** Decodes and reads a body. Throws CaError `body.base64` and everything `readCsr` throws. */
export function readApplicant(body: Uint8Array): CertificationRequest {
  const der = decodeOctets(body)
  if (der === undefined) throw refuse('body.base64', 'the body is not base64')
  return readCsr(der)
}

/**
 * Checks the CSR's own signature, then that it was made for this very connection (RFC 7030 3.5).
 * `binding`: the connection's, null when it has none, `foreign` when the request was made for a
 * connection to a registration authority (RFC 7030 3.7) and only has to carry some binding. Throws CaError `csr.signature`,
 * `csr.algorithm`, `binding.required`, `binding.mismatch`.
 */
export function possess(
  applicant: CertificationRequest,
  binding: Uint8Array | null | 'foreign',
  linking: Linking,
): void {
  provePossession(applicant)
  const { challengePassword } = applicant
  if (challengePassword === null) {
    if (linking === 'required')
      throw refuse('binding.required', 'challengePassword does not hold the channel binding')
    return
  }
  if (binding === 'foreign') return
  const given = encodeUtf8(challengePassword.replace(/\s+/g, ''))
  const wanted = encodeUtf8(binding === null ? '' : binding.toBase64())
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted))
    throw refuse('binding.mismatch', 'challengePassword is not the binding of this connection')
}
