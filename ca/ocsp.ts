/**
 * OCSP (RFC 6960): one question about certificates of one issuer, answered from their rows, signed
 * by a responder that this very issuer made for the purpose.
 */
import { createHash } from 'node:crypto'
import { sha256Hex, signingIdentifier } from './algorithm.ts'
import { reasonCode } from './crl.ts'
import { findExtension, readExtensions } from './der/certificate.ts'
import { Cursor } from './der/cursor.ts'
import { writeName } from './der/name.ts'
import { oid, OID, oidOf } from './der/oid.ts'
import {
  childrenOf,
  DerError,
  expect,
  readDer,
  sameBytes,
  TAG,
  wholeBits,
  type DerNode,
} from './der/reader.ts'
import {
  bitString,
  context,
  contextPrimitive,
  generalizedTime,
  octetString,
  sequence,
  tlv,
} from './der/writer.ts'
import { CaError, relying } from './errors.ts'
import { finish, prepare, record, type IssuingDesk } from './issue.ts'
import type { Issuer, Issuers } from './issuer.ts'
import { profiles } from './profile.ts'
import type { Signer } from './signer.ts'
import type { CaStore, CertificateRow } from './store.ts'
import { instant, type Instant, type Random } from './time.ts'

/** A question about sixteen certificates with SHA-512 ids and a nonce fits; nobody needs more. */
export const OCSP_REQUEST_LIMIT = 4_096
const MOST_REQUESTS = 16
const REQUEST_TREE = { depth: 10, nodes: 256 }
/** How long an answer may be relied on. */
const LIFETIME_MS = 3_600_000
/** A kept answer is given out while at least this much of it is left. */
const LEFT_MS = LIFETIME_MS / 4

/** RFC 6960 4.2.1 OCSPResponseStatus; the others are not used. */
const STATUS = {
  successful: 0,
  malformedRequest: 1,
  internalError: 2,
  tryLater: 3,
  unauthorized: 6,
} as const
export type OcspStatus = keyof typeof STATUS

export interface OcspAnswer {
  /** OCSPResponse, DER. */
  readonly der: Uint8Array
  readonly status: OcspStatus
  /** Of a successful answer; null for an error, which is not signed. */
  readonly thisUpdate: Instant | null
  readonly nextUpdate: Instant | null
  /** False where it holds a nonce: good for the one who asked. */
  readonly shared: boolean
}

/** Who signs for one issuer. */
export interface Responder {
  readonly issuer: string
  readonly serial: string
  /** DER. */
  readonly certificate: Uint8Array
  /** Its subject Name, DER. */
  readonly name: Uint8Array
  readonly notAfter: Instant
  readonly signer: Signer
}

/**
 * Issues a responder certificate of profile `ocsp` (7 days, OCSPSigning, nocheck), recorded and
 * logged like any other, by `issuer` itself (RFC 6960 4.2.2.2). `signer` holds the responder's key.
 * Throws CaError `issuer.expired`, `issuer.mismatch`, `key.algorithm`, `key.bound`, `log.unavailable`,
 * `store.unavailable`, `signer.unavailable`.
 */
export async function issueResponder(
  request: {
    readonly tenant: string
    readonly gateway: string
    readonly issuers: Issuers
    readonly issuer: Issuer
    readonly signer: Signer
    readonly now: Instant
    readonly random: Random
  },
  desk: IssuingDesk,
): Promise<Responder> {
  const { tenant, gateway, issuers, issuer, signer, now, random } = request
  if (issuer.signer === undefined)
    throw new CaError('issuer.mismatch', 'local', 'the key of this issuing CA is not at hand')
  const name = writeName([
    { type: 'organization', text: tenant.slice(0, 64) },
    { type: 'commonName', text: `OCSP of ${gateway}` },
  ])
  const alone = { recall: null, parent: null, tokenId: null, decisionId: null, requestId: null }
  const wanted = { tenant, subject: gateway, name, san: null, spki: signer.publicKey, ...alone }
  const by = { ...issuer, signer: issuer.signer }
  const draft = prepare(profiles.ocsp, wanted, by, now, random)
  const recorded = await record(draft, desk.store)
  const row = await finish(recorded, issuers, desk, { now, remoteAddress: null })
  const { serial, certificate, notAfter } = row
  return { issuer: issuer.id, serial, certificate, name, notAfter, signer }
}

export interface OcspOptions {
  readonly tenant: string
  readonly issuers: Issuers
  readonly store: Pick<CaStore, 'findCertificate'>
  /** Who signs for this issuer now; undefined where its key is gone. */
  readonly responder: (issuer: Issuer) => Promise<Responder | undefined>
  readonly answers: OcspAnswers
  readonly now: Instant
}

/** Signed answers, kept while they hold; the oldest go first. */
export class OcspAnswers {
  readonly #most: number
  readonly #kept = new Map<string, { readonly facts: string; readonly answer: OcspAnswer }>()
  constructor(most = 10_000) {
    this.#most = most
  }
  get size(): number {
    return this.#kept.size
  }
  /** `facts`: what the answer says and who signed it; another answer is not given out. */
  find(question: string, facts: string, now: Instant): OcspAnswer | undefined {
    const kept = this.#kept.get(question)
    if (kept === undefined || kept.facts !== facts) return undefined
    const { thisUpdate, nextUpdate } = kept.answer
    const holds = now >= (thisUpdate ?? Infinity) && now + LEFT_MS <= (nextUpdate ?? 0)
    return holds ? kept.answer : undefined
  }
  keep(question: string, facts: string, answer: OcspAnswer): void {
    this.#kept.delete(question)
    this.#kept.set(question, { facts, answer })
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > this.#most && oldest !== undefined) this.#kept.delete(oldest)
  }
}

/**
 * Answers a request (DER). Never throws: what cannot be read is `malformedRequest`, an issuer that
 * is none of ours `unauthorized`, a store or key that does not answer `tryLater`. `failed` is told of those.
 */
export async function answerOcsp(
  request: Uint8Array,
  options: OcspOptions,
  failed: (error: unknown) => void = () => {},
): Promise<OcspAnswer> {
  try {
    return await answer(readRequest(request), options)
  } catch (error) {
    if (error instanceof DerError) return refusal('malformedRequest')
    failed(error)
    return refusal(error instanceof CaError ? 'tryLater' : 'internalError')
  }
}

/** An answer that is only a status (4.2.1): nobody signs those. */
export function refusal(status: Exclude<OcspStatus, 'successful'>): OcspAnswer {
  const der = sequence(tlv(TAG.enumerated, Uint8Array.of(STATUS[status])))
  return { der, status, thisUpdate: null, nextUpdate: null, shared: false }
}

interface CertificateId {
  /** CertID, DER, as it came: it goes back as it is. */
  readonly bytes: Uint8Array
  readonly hash: string
  readonly nameHash: Uint8Array
  readonly keyHash: Uint8Array
  /** Hex of the INTEGER's contents. */
  readonly serial: string
}
interface OcspQuestion {
  readonly ids: readonly CertificateId[]
  readonly nonce: Uint8Array | null
}

function readRequest(der: Uint8Array): OcspQuestion {
  if (der.length > OCSP_REQUEST_LIMIT) throw new DerError('the request is too long')
  // A signature on the request (4.1.2) is not looked at: answers are for everybody.
  const [tbs, signature, more] = childrenOf(readDer(der, REQUEST_TREE), TAG.sequence, 'OCSPRequest')
  if (more !== undefined || (signature !== undefined && signature.tag !== 0xa0))
    throw new DerError('OCSPRequest has other parts')
  const [requests, extensions, rest] = afterRequestor(tbs)
  const list = childrenOf(requests, TAG.sequence, 'requestList')
  if (list.length === 0 || list.length > MOST_REQUESTS)
    throw new DerError(`a request asks for 1 to ${MOST_REQUESTS} certificates`)
  if (rest !== undefined) throw new DerError('TBSRequest has other parts')
  return { ids: list.map(readId), nonce: extensions === undefined ? null : nonceOf(extensions) }
}

/** What follows version and requestorName, both of which may be left out. */
function afterRequestor(tbs: DerNode | undefined): readonly DerNode[] {
  const parts = [...childrenOf(tbs, TAG.sequence, 'TBSRequest')]
  if (parts[0]?.tag === 0xa0) checkVersion(parts.shift())
  if (parts[0]?.tag === 0xa1) parts.shift()
  return parts
}

function checkVersion(node: DerNode | undefined): void {
  const [version] = childrenOf(node, 0xa0, 'version')
  if (!sameBytes(expect(version, TAG.integer, 'version').value, Uint8Array.of(0)))
    throw new DerError('not version 1')
}

function readId(node: DerNode): CertificateId {
  const [id, single, more] = childrenOf(node, TAG.sequence, 'Request')
  if (more !== undefined) throw new DerError('Request has other parts')
  if (single !== undefined) refuseCritical(expect(single, 0xa0, 'singleRequestExtensions'))
  const [algorithm, name, key, serial, rest] = childrenOf(id, TAG.sequence, 'CertID')
  if (id === undefined || rest !== undefined) throw new DerError('CertID has other parts')
  const [hash] = childrenOf(algorithm, TAG.sequence, 'hashAlgorithm')
  return {
    bytes: id.bytes,
    hash: oidOf(hash, 'hashAlgorithm'),
    nameHash: expect(name, TAG.octetString, 'issuerNameHash').value,
    keyHash: expect(key, TAG.octetString, 'issuerKeyHash').value,
    serial: expect(serial, TAG.integer, 'serialNumber').value.toHex(),
  }
}

/** 4.4: an extension nobody here understands may be left aside, unless it says that it must not. */
function refuseCritical(tail: DerNode): ReturnType<typeof readExtensions> {
  const extensions = readExtensions(Cursor.within(tail))
  if (extensions.some((each) => each.critical && each.oid !== OID.ocspNonce))
    throw new DerError('a critical extension is not understood')
  return extensions
}

/** RFC 9654 2.1: 1 to 128 octets; another length is a malformed request. */
function nonceOf(tail: DerNode): Uint8Array | null {
  const extensions = refuseCritical(expect(tail, 0xa2, 'requestExtensions'))
  const nonce = findExtension(extensions, 'ocspNonce')
  if (nonce === undefined) return null
  const { value } = expect(readDer(nonce.value, REQUEST_TREE), TAG.octetString, 'nonce')
  if (value.length < 1 || value.length > 128) throw new DerError('a nonce has 1 to 128 octets')
  return value
}

/** Hashes a CertID may be made with. SHA-1 only finds the issuer here: it vouches for nothing. */
const HASHES: Readonly<Record<string, string>> = {
  [OID.sha1]: 'sha1',
  [OID.sha256]: 'sha256',
  [OID.sha384]: 'sha384',
  [OID.sha512]: 'sha512',
}

function isOf({ hash, nameHash, keyHash }: CertificateId, issuer: Issuer): boolean {
  const name = HASHES[hash]
  if (name === undefined) return false
  const digest = (bytes: Uint8Array) => createHash(name).update(bytes).digest()
  return sameBytes(digest(issuer.subject), nameHash) && sameBytes(digest(keyBits(issuer)), keyHash)
}

function keyBits({ publicKey }: Issuer): Uint8Array {
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  const [, bits] = childrenOf(readDer(spki), TAG.sequence, 'SubjectPublicKeyInfo')
  return wholeBits(bits, 'subjectPublicKey')
}

async function answer(question: OcspQuestion, options: OcspOptions): Promise<OcspAnswer> {
  const { ids, nonce } = question
  const [first] = ids
  const issuer = options.issuers.all.find((each) => first !== undefined && isOf(first, each))
  // 4.2.2.2: one signature answers for one issuer; a mixed question has no answer here.
  if (issuer === undefined || !ids.every((id) => isOf(id, issuer))) return refusal('unauthorized')
  const responder = await options.responder(issuer)
  if (responder === undefined) return refusal('unauthorized')
  const rows = await relying('store.unavailable', () =>
    Promise.all(ids.map(({ serial }) => options.store.findCertificate(serial))),
  )
  const statuses = rows.map((row) => statusOf(row, issuer, options.tenant))
  const key = sha256Hex(Buffer.concat(ids.map(({ bytes }) => bytes)))
  const facts = `${responder.serial} ${statuses.map((status) => status.toHex()).join(' ')}`
  const kept = nonce === null ? options.answers.find(key, facts, options.now) : undefined
  if (kept !== undefined) return kept
  const made = await signAnswer(question, statuses, responder, options.now)
  if (nonce === null) options.answers.keep(key, facts, made)
  return made
}

const GOOD = contextPrimitive(0, new Uint8Array())
const UNKNOWN = contextPrimitive(2, new Uint8Array())

/** CertStatus, DER. A serial of ours that was never issued, or has no certificate yet, is unknown. */
function statusOf(row: CertificateRow | undefined, issuer: Issuer, tenant: string): Uint8Array {
  if (row === undefined || row.issuer !== issuer.id || row.tenant !== tenant) return UNKNOWN
  if (row.state === 'revoked') {
    const code = reasonCode(row.revocationReason)
    const reason = code === undefined ? [] : [context(0, code)]
    return context(1, generalizedTime(row.revokedAt ?? row.recordedAt), ...reason)
  }
  return row.state === 'intent' ? UNKNOWN : GOOD
}

async function signAnswer(
  { ids, nonce }: OcspQuestion,
  statuses: readonly Uint8Array[],
  responder: Responder,
  now: Instant,
): Promise<OcspAnswer> {
  const thisUpdate = instant(Math.floor(now / 1_000) * 1_000)
  const nextUpdate = instant(Math.min(thisUpdate + LIFETIME_MS, responder.notAfter))
  const dates = [generalizedTime(thisUpdate), context(0, generalizedTime(nextUpdate))]
  const singles = ids.map(({ bytes }, at) => sequence(bytes, statuses[at] ?? UNKNOWN, ...dates))
  const echo =
    nonce === null
      ? []
      : [context(1, sequence(sequence(oid(OID.ocspNonce), octetString(octetString(nonce)))))]
  const data = sequence(
    // ResponderID byName: the other choice is a SHA-1 hash of the key.
    context(1, responder.name),
    generalizedTime(thisUpdate),
    sequence(...singles),
    ...echo,
  )
  const { signer, certificate } = responder
  const signature = await relying('signer.unavailable', () => signer.sign(data))
  const basic = sequence(
    data,
    signingIdentifier[signer.algorithm],
    bitString(signature),
    context(0, sequence(certificate)),
  )
  const der = sequence(
    tlv(TAG.enumerated, Uint8Array.of(STATUS.successful)),
    context(0, sequence(oid(OID.ocspBasic), octetString(basic))),
  )
  return { der, status: 'successful', thisUpdate, nextUpdate, shared: nonce === null }
}
