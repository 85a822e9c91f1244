/** Certificates of our own gateways: the TLS face of the one port and of the web apps. */
import { DerError } from './der/reader.ts'
import { CaError } from './errors.ts'
import { finish, prepare, record, type IssuedRow, type IssuingDesk } from './issue.ts'
import type { Issuers } from './issuer.ts'
import { isId, isTenant, sanFor, subjectFor, uriFor } from './name.ts'
import { profiles } from './profile.ts'
import type { Instant, Random } from './time.ts'

export interface ServerCertificate {
  readonly row: IssuedRow
  /** The certificate, the issuing CA and what is above it but the root, DER: what the TLS server presents. */
  readonly chain: readonly Uint8Array[]
}

/**
 * Issues a gateway certificate (30 d, serverAuth), recorded and logged before it is signed like any
 * other. SAN: `sallyport://<tenant>/gateway/<id>`, the DNS names (a leftmost `*.` label is allowed:
 * `*.apps.example.com` is the web apps' name) and the IP addresses.
 * Throws CaError `profile` (a name is malformed), `key.algorithm`, `key.weak`, `key.bound`,
 * `issuer.expired`, `log.unavailable`, `store.unavailable`, `signer.unavailable`.
 */
export async function issueServer(
  request: {
    readonly tenant: string
    readonly gateway: string
    readonly dnsNames: readonly string[]
    readonly ipAddresses: readonly string[]
    /** SubjectPublicKeyInfo, DER; P-256, P-384 or Ed25519. */
    readonly publicKey: Uint8Array
    readonly issuers: Issuers
    readonly now: Instant
    readonly random: Random
  },
  desk: IssuingDesk,
): Promise<ServerCertificate> {
  const { tenant, gateway, publicKey: spki, issuers, now, random } = request
  if (!isTenant(tenant) || !isId(gateway))
    throw new CaError('profile', 'local', 'a gateway certificate needs a tenant and a gateway id')
  const uri = uriFor(tenant, 'gateway', gateway)
  const san = sanFor(uri, request.dnsNames, request.ipAddresses)
  const alone = { recall: null, parent: null, tokenId: null, decisionId: null, requestId: null }
  const wanted = { tenant, subject: gateway, name: subjectFor(gateway), san, spki, ...alone }
  const draft = readable(() => prepare(profiles.gateway, wanted, issuers.active, now, random))
  const recorded = await record(draft, desk.store)
  const row = await finish(recorded, issuers, desk, { now, remoteAddress: null })
  const { active } = issuers
  return { row, chain: [row.certificate, active.certificate, ...(active.above ?? [])] }
}

function readable<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw new CaError('key.weak', 'local', `the public key cannot be read: ${cause.message}`, {
      cause,
    })
  }
}
