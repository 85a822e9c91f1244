/** What a CSR should hold, told to the client (RFC 7030 4.5, RFC 8951 4, RFC 9908). */
import { oid, OID } from './der/oid.ts'
import { context, sequence, setOf, smallInteger } from './der/writer.ts'
import type { EstLabel, Linking } from './label.ts'

const KEY = sequence(oid(OID.ecPublicKey), setOf(oid(OID.p256)))
const HASH = oid(OID.ecdsaSha256)
const CHALLENGE = oid(OID.challengePassword)

/**
 * CertificationRequestInfoTemplate (RFC 9908 3.4): version 0; a common name and one SAN, both the
 * client's to fill; the key's algorithm without a key, because only an RSA one would say a size.
 */
const TEMPLATE = sequence(
  oid(OID.requestTemplate),
  setOf(
    sequence(
      smallInteger(0),
      sequence(setOf(sequence(oid(OID.commonName)))),
      context(0, sequence(oid(OID.ecPublicKey), oid(OID.p256))),
      context(
        1,
        sequence(oid(OID.extensionTemplate), setOf(sequence(sequence(oid(OID.subjectAltName))))),
      ),
    ),
  ),
)

/**
 * CsrAttrs, DER: key, curve and hash of the key we recommend; challengePassword only where linking
 * is required, because some TLS 1.3 clients fill it with something else when merely told of it.
 * Undefined where a label has nothing to say (RFC 7030 4.5.2: 204).
 */
export function csrAttributes(
  form: NonNullable<EstLabel['csrattrs']>,
  linking: Linking,
): Uint8Array | undefined {
  if (form === 'none') return undefined
  const template = form === 'template' ? [TEMPLATE] : []
  return sequence(...(linking === 'required' ? [CHALLENGE] : []), KEY, HASH, ...template)
}
