/** The certs-only envelope (RFC 5272 4.1, RFC 5652 5): certificates in a SignedData nobody signed. */
import { oid, OID, oidOf } from './oid.ts'
import { CERTIFICATE_LIMITS, childrenOf, DerError, readDer, TAG } from './reader.ts'
import { context, sequence, smallInteger, tlv } from './writer.ts'

const HEAD = smallInteger(1)
const EMPTY_SET = tlv(TAG.set)
// RFC 5272 4.1: eContent is absent, not empty; some libraries write an empty one.
const NO_CONTENT = sequence(oid(OID.data))

/** Wraps certificates in the order given: clients take the first for their own. */
export function writeCertsOnly(certificates: readonly Uint8Array[]): Uint8Array {
  const signedData = sequence(HEAD, EMPTY_SET, NO_CONTENT, context(0, ...certificates), EMPTY_SET)
  return sequence(oid(OID.signedData), context(0, signedData))
}

/** The certificates inside, DER, in their order. Throws DerError when it is no certs-only message. */
export function readCertsOnly(der: Uint8Array): readonly Uint8Array[] {
  // A rollover serves a handful of certificates; each is up to CERTIFICATE_LIMITS by itself.
  const limits = { depth: CERTIFICATE_LIMITS.depth + 6, nodes: CERTIFICATE_LIMITS.nodes * 8 }
  const [type, content] = childrenOf(readDer(der, limits), TAG.sequence, 'ContentInfo')
  if (oidOf(type, 'the content type') !== OID.signedData) throw new DerError('not SignedData')
  const [signedData] = childrenOf(content, 0xa0, 'the content')
  const parts = childrenOf(signedData, TAG.sequence, 'SignedData')
  const certificates = parts.find((part) => part.tag === 0xa0)
  if (certificates === undefined) throw new DerError('no certificates')
  return certificates.children.map((certificate) => {
    if (certificate.tag !== TAG.sequence) throw new DerError('an attribute certificate')
    return certificate.bytes
  })
}
