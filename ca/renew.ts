/** The next certificate: authenticated by the one it follows (RFC 7030 4.2.2), expired or not. */
import { possess } from './applicant.ts'
import type { CertificationRequest } from './csr.ts'
import { findExtension, readCertificate } from './der/certificate.ts'
import { sameGeneralNames, sameName } from './der/name.ts'
import { DerError } from './der/reader.ts'
import { refuse, relying } from './errors.ts'
import type { IssuedRow } from './issue.ts'
import type { EstLabel } from './label.ts'
import { verifyPeer, type Peer } from './path.ts'
import {
  carryOut,
  linkingOf,
  newAttempt,
  recall,
  recallOf,
  refuseTakenKey,
  requireDevice,
  type Attempt,
  type Errand,
  type Plan,
} from './registrar.ts'

/**
 * Steps 4 to 10 of a CSR's life for the certificate the connection presented. An expired one is
 * checked as fully as a current one before policy hears of it. Throws CaError by code; a refusal
 * leaves no trace but its log event.
 */
export async function renew(errand: Errand): Promise<IssuedRow> {
  const { connection } = errand
  const [leaf] = connection.clientChain
  if (leaf === undefined)
    throw refuse(
      'certificate.required',
      'a renewal needs the certificate it follows, in the TLS handshake',
    )
  const attempt = newAttempt('cert.renew')
  return await carryOut(attempt, errand, async () => {
    const peer = await identify(attempt, errand)
    return await follow(peer, leaf, errand)
  })
}

async function identify(attempt: Attempt, { connection, label, options }: Errand): Promise<Peer> {
  const { tenant, store } = options
  const terms = {
    tenant,
    store,
    issuers: options.issuers(),
    now: options.now(),
    kind: label.profile,
  }
  const peer = await verifyPeer(connection.clientChain, { ...terms, purpose: 'est' })
  attempt.device = peer.device
  attempt.serial = peer.serial
  if (!peer.ok) throw refuse(peer.code, peer.message)
  attempt.expiredSeconds = peer.expiredSeconds
  return peer
}

async function follow(peer: Peer, leaf: Uint8Array, errand: Errand): Promise<Plan> {
  const { applicant, options } = errand
  possess(applicant, errand.binding, linkingOf(errand))
  checkSameNames(applicant, leaf, errand.label)
  const device = await requireDevice(peer.device, options)
  const principal = `certificate:${peer.serial}`
  const again = recallOf(principal, 'simplereenroll', errand)
  // Asked together: the store answers both in one turn.
  const [known] = await Promise.all([
    recall(again.key, device, options),
    refuseTakenKey(device.id, errand),
  ])
  if (known !== undefined) return { known }
  return {
    device,
    facts: {
      enroll: null,
      renew: {
        device_id: peer.device,
        serial: peer.serial,
        not_after: Math.floor(peer.notAfter / 1_000),
        expired_s: peer.expiredSeconds,
        // A chain that is not ours never gets here.
        chain_ok: true,
        same_key: applicant.spkiSha256 === peer.spkiSha256,
        late_used: await wasRenewedLate(peer, errand),
      },
    },
    principal,
    ask: { recall: again, parent: peer.serial, tokenId: null },
  }
}

/** RFC 7030 4.2.2: subject and SAN are those of the renewed certificate; SAN as a set. */
function checkSameNames(
  { subject, san: asked }: CertificationRequest,
  leaf: Uint8Array,
  label: EstLabel,
): void {
  const old = readCertificate(leaf)
  const oldSan = findExtension(old.extensions, 'subjectAltName')?.value
  const san = asked ?? (label.san === 'copy' ? oldSan : undefined)
  try {
    if (!sameName(subject, old.subject))
      throw refuse('name.subject', 'the subject is not that of the certificate being renewed')
    if (san === undefined || oldSan === undefined || !sameGeneralNames(san, oldSan))
      throw refuse('name.san', 'subjectAltName is not that of the certificate being renewed')
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw refuse('name.san', `a name cannot be read: ${cause.message}`, { cause })
  }
}

/** Whether this certificate was already followed by another after its end. */
async function wasRenewedLate(peer: Peer, { label, options }: Errand): Promise<boolean> {
  if (peer.expiredSeconds === 0) return false
  const filter = { subject: peer.device, profile: label.profile, limit: 1_000 }
  const list = () => options.store.listCertificates(options.tenant, filter)
  const rows = await relying('store.unavailable', list)
  return rows.some((row) => row.parent === peer.serial && row.recordedAt > peer.notAfter)
}
