/** What a CSR should hold, told to the client (RFC 7030 4.5, RFC 8951 4, RFC 9908). */
import { oid, OID } from './der/oid.ts'
import { sequence, setOf } from './der/writer.ts'

const KEY = sequence(oid(OID.ecPublicKey), setOf(oid(OID.p256)))
const HASH = oid(OID.ecdsaSha256)
const CHALLENGE = oid(OID.challengePassword)

/**
 * CsrAttrs, DER: key, curve and hash of the key we recommend; challengePassword only where linking
 * is required, because some TLS 1.3 clients fill it with something else when merely told of it.
 */
export function csrAttributes(linking: 'required' | 'optional'): Uint8Array {
  return sequence(...(linking === 'required' ? [CHALLENGE] : []), KEY, HASH)
}
