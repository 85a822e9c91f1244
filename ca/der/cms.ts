/** The certs-only envelope (RFC 5272 4.1, RFC 5652 5): certificates in a SignedData nobody signed. */
import { oid, OID, oidOf } from './oid.ts'
import { CERTIFICATE_LIMITS, childrenOf, DerError, readDer, TAG } from './reader.ts'
import { join, lengthOf, Pen, sequence, sized, smallInteger, tlv } from './writer.ts'

/** RFC 5652 5.1: version 1, no digest algorithms. RFC 5272 4.1: eContent is absent, not empty; some libraries write an empty one. */
const HEAD = join(smallInteger(1), tlv(TAG.set), sequence(oid(OID.data)))
const NO_SIGNERS = tlv(TAG.set)
const TYPE = oid(OID.signedData)
const LIST = 0xa0

/** Wraps certificates in the order given: clients take the first for their own. */
export function writeCertsOnly(certificates: readonly Uint8Array[]): Uint8Array {
  const list = lengthOf(certificates)
  const signedData = HEAD.length + sized(list) + NO_SIGNERS.length
  const whole = TYPE.length + sized(sized(signedData))
  const pen = new Pen(sized(whole))
  pen.head(TAG.sequence, whole)
  pen.put(TYPE)
  pen.head(LIST, sized(signedData))
  pen.head(TAG.sequence, signedData)
  pen.put(HEAD)
  pen.head(LIST, list)
  for (const certificate of certificates) pen.put(certificate)
  pen.put(NO_SIGNERS)
  return pen.bytes
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
