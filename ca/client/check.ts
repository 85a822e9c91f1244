/** What an agent believes only after checking it itself. */
import { createHash, createPublicKey, X509Certificate, type KeyObject } from 'node:crypto'
import { EstError } from './errors.ts'
import { pathTo, signedBy } from './path.ts'

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function parse(der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(der)
  } catch (cause) {
    throw new EstError('certificate.chain', 'the server sent something that is no certificate', {
      cause,
    })
  }
}

/**
 * The certificate among `certificates` whose SHA-256 is `pin` (hex, colons and case do not matter);
 * it is a CA that signed itself. Throws EstError `root.pin`.
 */
export function pinRoot(certificates: readonly Uint8Array[], pin: string): Uint8Array {
  const wanted = pin.replace(/[:\s]/g, '').toLowerCase()
  const found = certificates.find((certificate) => sha256(certificate) === wanted)
  if (found === undefined)
    throw new EstError(
      'root.pin',
      'no CA certificate of this server has the pinned SHA-256: wrong gateway, or someone is in between',
    )
  const root = parse(found)
  if (!signedBy(root, root))
    throw new EstError('root.pin', 'the pinned certificate is not a root: it does not sign itself')
  return found
}

export interface Accepted {
  /** Lower-case hex. */
  readonly serial: string
  /** Epoch ms. */
  readonly notBefore: number
  /** Epoch ms. */
  readonly notAfter: number
  /** The certificate and the issuing CAs under the root, DER: what to present in TLS. */
  readonly chain: readonly Uint8Array[]
}

/**
 * Checks a certificate just issued: our key, our name, signed through `authorities` (DER, from
 * /cacerts) up to the pinned `root`, not ended at `now` (epoch ms). A start in the future is let
 * through: the clock of a device without battery is the likelier liar, and the root is pinned.
 * Throws EstError `certificate.key`, `certificate.name`, `certificate.chain`, `certificate.dates`.
 */
export function acceptIssued(
  certificate: Uint8Array,
  options: {
    /** Private, or the public one where the private one stays in a token. */
    readonly key: KeyObject
    readonly deviceId: string
    readonly tenant: string
    readonly authorities: readonly Uint8Array[]
    readonly root: Uint8Array
    readonly now: number
  },
): Accepted {
  const leaf = parse(certificate)
  const { key } = options
  if (!leaf.publicKey.equals(key.type === 'public' ? key : createPublicKey(key)))
    throw new EstError('certificate.key', 'the certificate is for another key than the one sent')
  const uri = `URI:sallyport://${options.tenant}/device/${options.deviceId}`
  if (leaf.subjectAltName !== uri)
    throw new EstError('certificate.name', `the certificate does not name ${options.deviceId}`)
  const notAfter = leaf.validToDate.getTime()
  if (notAfter < options.now)
    throw new EstError('certificate.dates', 'the certificate has ended; check the clock')
  return {
    serial: leaf.serialNumber.toLowerCase(),
    notBefore: leaf.validFromDate.getTime(),
    notAfter,
    chain: [certificate, ...climb(leaf, options)],
  }
}

/** What leads from `leaf` to the pinned root, DER, both left out. Throws EstError `certificate.chain`. */
function climb(
  leaf: X509Certificate,
  terms: {
    readonly authorities: readonly Uint8Array[]
    readonly root: Uint8Array
    readonly now: number
  },
): Uint8Array[] {
  const { authorities, root, now } = terms
  const path = pathTo(leaf, authorities.map(parse), parse(root), { purpose: 'clientAuth', now })
  if (path === undefined)
    throw new EstError('certificate.chain', 'the certificate does not lead to the pinned root')
  return path.slice(1, -1).map(({ raw }) => new Uint8Array(raw))
}
