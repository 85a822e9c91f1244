/** What an EST server wants a request to hold (RFC 8951 4, RFC 9908), as far as a client can follow it. */
import { decodeBody } from '../der/base64.ts'
import { OID, oidOf } from '../der/oid.ts'
import { childrenOf, DerError, readDer, TAG, type DerNode } from '../der/reader.ts'
import { EstError } from './errors.ts'

export interface CsrWishes {
  /** Proof-of-possession linking is required (RFC 8951 4). */
  readonly challengePassword: boolean
  /** The key's algorithm, and its curve or size in bits; null where any will do. */
  readonly key: { readonly algorithm: string; readonly parameter: string | null } | null
  /** Whether a CertificationRequestInfoTemplate came along (RFC 9908 3.4). */
  readonly template: boolean
  /** Everything, in order, dotted: identifiers, and the types of attributes. */
  readonly all: readonly string[]
}

const LONGEST = 65_536
const LIMITS = { depth: 16, nodes: 512 }

/** Reads the base64 of a CsrAttrs. Throws EstError `response.body`. */
export function parseCsrAttributes(body: string): CsrWishes {
  const der = body.length > LONGEST ? undefined : decodeBody(body)
  if (der === undefined) throw new EstError('response.body', 'the answer is not base64')
  try {
    return wishesOf(childrenOf(readDer(der, LIMITS), TAG.sequence, 'CsrAttrs'))
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw new EstError('response.body', `the answer is no CsrAttrs: ${cause.message}`, { cause })
  }
}

function wishesOf(nodes: readonly DerNode[]): CsrWishes {
  const entries = nodes.map(entryOf)
  const keys = entries.filter(({ oid }) => oid === OID.ecPublicKey || oid === OID.rsaEncryption)
  const [key] = keys
  return {
    challengePassword: entries.some(({ oid }) => oid === OID.challengePassword),
    key: key === undefined ? null : { algorithm: key.oid, parameter: parameterOf(key.values[0]) },
    template: entries.some(({ oid }) => oid === OID.requestTemplate),
    all: entries.map(({ oid }) => oid),
  }
}

interface Entry {
  readonly oid: string
  readonly values: readonly DerNode[]
}

/** AttrOrOID: an identifier by itself, or an Attribute with its values. */
function entryOf(node: DerNode): Entry {
  if (node.tag === TAG.oid) return { oid: oidOf(node, 'an attribute'), values: [] }
  const [type, values, more] = childrenOf(node, TAG.sequence, 'an attribute')
  if (more !== undefined) throw new DerError('an attribute has other parts')
  return {
    oid: oidOf(type, 'the attribute type'),
    values: childrenOf(values, TAG.set, 'the values'),
  }
}

/** A curve as its identifier, an RSA size as digits. */
function parameterOf(value: DerNode | undefined): string | null {
  if (value === undefined) return null
  if (value.tag === TAG.oid) return oidOf(value, 'the curve')
  return value.tag === TAG.integer ? String(Number(`0x${value.value.toHex()}`)) : null
}
