/**
 * prepare -> Draft -> Recorded -> certificate. A draft is recorded once; only what was recorded is
 * signed, by the issuer it names; after a crash the stored bytes are signed, never new ones.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import {
  importKey,
  sha256Hex,
  signingIdentifier,
  verifySignature,
  type ImportedKey,
} from './algorithm.ts'
import { TAG } from './der/reader.ts'
import { Pen, sized } from './der/writer.ts'
import { CaError, refuse, relying } from './errors.ts'
import type { AttemptEvent, CaEvent, CaLog } from './event.ts'
import type { ActiveIssuer, Issuer, Issuers } from './issuer.ts'
import { lintSlots, lintTemplate } from './lint.ts'
import { lifetimeWithin, type Profile } from './profile.ts'
import { newSerial } from './serial.ts'
import type { Signer, SigningAlgorithm } from './signer.ts'
import type { CaStore, CertificateRow, Intention } from './store.ts'
import { compile, type Template } from './template.ts'
import { instant, type Instant, type Random } from './time.ts'

/** What a certificate is to say, checked by whoever asks. */
export interface IssueRequest {
  readonly tenant: string
  /** The id it is about. */
  readonly subject: string
  /** Name, DER. */
  readonly name: Uint8Array
  /** GeneralNames, DER; null for an OCSP responder. */
  readonly san: Uint8Array | null
  /** SubjectPublicKeyInfo, DER; or the key made of it, which is not checked again. */
  readonly spki: Uint8Array | ImportedKey
  /** Within the profile; absent: its usual life. */
  readonly lifetimeSeconds?: number | undefined
  /** A decision's obligations: each can only shorten. */
  readonly shortened?: {
    readonly lifetimeSeconds?: number | undefined
    readonly notAfter?: Instant | undefined
  }
  readonly recall: { readonly key: string; readonly windowSeconds: number } | null
  readonly parent: string | null
  readonly tokenId: string | null
  readonly decisionId: string | null
  readonly requestId: string | null
}

const secret = Symbol('made by issue.ts')

/** Checked, filled and linted, on nobody's record yet. Only `prepare` makes one. */
export class Draft {
  readonly #intention: Intention
  #spent = false
  constructor(made: typeof secret, intention: Intention) {
    if (made !== secret) throw new CaError('draft.spent', 'local', 'a draft comes from prepare')
    this.#intention = intention
  }
  get serial(): string {
    return this.#intention.serial
  }
  /** Hands the intention over, once. Throws CaError `draft.spent`. */
  redeem(): Intention {
    if (this.#spent) throw new CaError('draft.spent', 'local', 'this draft was recorded before')
    this.#spent = true
    return this.#intention
  }
}

/** On record: the one thing that may be signed. Only `record` and `resume` make one. */
export class Recorded {
  readonly row: CertificateRow
  /** False when the record was there before this request. */
  readonly fresh: boolean
  #spent = false
  constructor(made: typeof secret, row: CertificateRow, fresh: boolean) {
    if (made !== secret) throw new CaError('draft.spent', 'local', 'a record comes from the store')
    this.row = row
    this.fresh = fresh
  }
  /** Throws CaError `draft.spent` the second time. */
  redeem(): void {
    if (this.#spent) throw new CaError('draft.spent', 'local', 'this record was signed before')
    this.#spent = true
  }
}

/** RFC 5280 4.1.2.5 has no tolerance; devices' clocks do. */
const BACKDATED_MS = 300_000
/** Less than this is no life: the issuer or an obligation ends too soon. */
const SHORTEST_MS = 300_000

/**
 * Fills and lints the bytes to sign. Serial, dates and issuer are decided here, nothing is stored.
 * Throws CaError `issuer.expired` (also when `now` is before the issuer), `profile`, `lint`,
 * `key.algorithm`, `key.weak`.
 */
export function prepare(
  profile: Profile,
  request: IssueRequest,
  issuer: ActiveIssuer,
  now: Instant,
  random: Random,
): Draft {
  const key = request.spki instanceof Uint8Array ? importKey(request.spki) : request.spki
  key.requireSound()
  if (!profile.keys.includes(key.algorithm))
    throw refuse('key.algorithm', `a ${profile.name} certificate takes ${profile.keys.join(', ')}`)
  const serial = newSerial(random)
  const { notBefore, notAfter } = datesOf(profile, request, issuer, now)
  const { name: subject, san } = request
  const slots = { serial, notBefore, notAfter, subject, spki: key.spki, san }
  const template = templateFor(profile, issuer)
  lintSlots(slots, profile, issuer)
  const window = (request.recall?.windowSeconds ?? 0) * 1_000
  return new Draft(secret, {
    serial: serial.toHex(),
    tenant: request.tenant,
    profile: profile.name,
    subject: request.subject,
    issuer: issuer.id,
    spkiSha256: key.sha256,
    notBefore,
    notAfter,
    tbs: template.fill(slots),
    recallKey: request.recall?.key ?? null,
    recallUntil: instant(now + window),
    parent: request.parent,
    tokenId: request.tokenId,
    decisionId: request.decisionId,
    requestId: request.requestId,
    recordedAt: now,
  })
}

const templates = new WeakMap<ActiveIssuer, WeakMap<Profile, Template>>()

/** Compiled and linted once for each profile and issuer. Throws CaError `lint`. */
function templateFor(profile: Profile, issuer: ActiveIssuer): Template {
  const compiled = templates.get(issuer) ?? new WeakMap<Profile, Template>()
  const known = compiled.get(profile)
  if (known !== undefined) return known
  const template = compile(profile, { ...issuer, algorithm: issuer.signer.algorithm })
  lintTemplate(template, issuer)
  templates.set(issuer, compiled.set(profile, template))
  return template
}

/** A clock of a node is wrong more often than its CA has ended: both dates are said. */
function notInDate({ notBefore, notAfter }: Issuer, now: Instant): CaError {
  const date = (at: number) => new Date(at).toISOString()
  const [what, next] =
    now < notBefore
      ? [`begins at ${date(notBefore)}`, 'set its clock']
      : [
          `ended at ${date(notAfter)}`,
          'set its clock if that is wrong, else: sallyport ca rotate --now',
        ]
  const said = `the issuing CA ${what}, and this gateway believes it is ${date(now)}: ${next}`
  return new CaError('issuer.expired', 'local', said)
}

function datesOf(profile: Profile, request: IssueRequest, issuer: Issuer, now: Instant) {
  if (now < issuer.notBefore || now >= issuer.notAfter) throw notInDate(issuer, now)
  const { shortened } = request
  const wanted = lifetimeWithin(profile, request.lifetimeSeconds)
  const life = Math.min(wanted, Math.floor(shortened?.lifetimeSeconds ?? wanted))
  const notBefore = Math.max(Math.floor((now - BACKDATED_MS) / 1_000) * 1_000, issuer.notBefore)
  // RFC 5280 4.1.2.5: notAfter is inclusive, hence minus a second.
  const least = Math.min(issuer.notAfter, shortened?.notAfter ?? Infinity)
  const notAfter = Math.floor(Math.min(notBefore + (life - 1) * 1_000, least) / 1_000) * 1_000
  if (!(notAfter - now >= SHORTEST_MS))
    throw new CaError(
      'issuer.expired',
      'local',
      'what is left of the issuing CA, or allowed, is too short',
    )
  return { notBefore: instant(notBefore), notAfter: instant(notAfter) }
}

/**
 * Makes a draft durable. Gives the row this request already had, if it had one.
 * Throws CaError `draft.spent`, `store.unavailable`, and what the transaction refused:
 * `token.bound`, `credential`, `key.bound`, `key.compromised`, `peer.superseded`, `issuer.revoked`.
 */
export async function record(draft: Draft, store: Pick<CaStore, 'record'>): Promise<Recorded> {
  const intention = draft.redeem()
  const result = await relying('store.unavailable', () => store.record(intention))
  switch (result.outcome) {
    case 'fresh':
    case 'recalled':
      return new Recorded(secret, result.row, result.outcome === 'fresh')
    case 'token.bound':
      throw refuse('token.bound', 'the token was used with another key')
    case 'token.gone':
      throw refuse('credential', 'the token or password is not valid')
    case 'parent.ended':
      throw refuse('peer.superseded', 'the certificate to renew is no longer the current one')
    case 'key.bound':
      throw refuse('key.bound', 'the key belongs to somebody else')
    case 'key.compromised':
      throw refuse('key.compromised', 'a certificate with this key was revoked as compromised')
    case 'issuer.revoked':
      throw new CaError('issuer.revoked', 'local', 'the issuing CA was revoked meanwhile')
  }
}

/** A record found by a retry, as it stands. */
export function resume(row: CertificateRow): Recorded {
  return new Recorded(secret, row, false)
}

/**
 * Signs what was recorded, with the key of the issuer it names, and verifies the result.
 * Throws CaError `draft.spent`, `issuer.mismatch` (that key is not here), `signer.unavailable`.
 */
export async function sign(recorded: Recorded, issuers: Issuers): Promise<Uint8Array> {
  const issuer = issuers.all.find((each) => each.id === recorded.row.issuer)
  if (issuer?.signer === undefined)
    throw new CaError(
      'issuer.mismatch',
      'local',
      'the CA that recorded this is not the one signing',
    )
  recorded.redeem()
  return await signOver(recorded.row.tbs, issuer.signer)
}

/** Certificate of a TBS and its signature, verified before anybody sees it. Throws CaError `signer.unavailable`. */
export async function signOver(tbs: Uint8Array, signer: Signer): Promise<Uint8Array> {
  const signature = await relying('signer.unavailable', () => signer.sign(tbs))
  if (!verifySignature(signingIdentifier[signer.algorithm], tbs, signature, verifierOf(signer)))
    throw new CaError(
      'signer.unavailable',
      'local',
      'the CA key gave a signature that does not verify',
    )
  return assemble(tbs, signer.algorithm, signature)
}

/** RFC 5280 4.1: Certificate, DER, of what was signed and the signature over it; checks nothing. */
export function assemble(
  tbs: Uint8Array,
  algorithm: SigningAlgorithm,
  signature: Uint8Array,
): Uint8Array {
  const identifier = signingIdentifier[algorithm]
  const bits = 1 + signature.length
  const length = tbs.length + identifier.length + sized(bits)
  const pen = new Pen(sized(length))
  pen.head(TAG.sequence, length)
  pen.put(tbs)
  pen.put(identifier)
  pen.head(TAG.bitString, bits)
  pen.put(NO_UNUSED_BITS)
  pen.put(signature)
  return pen.bytes
}

const NO_UNUSED_BITS = Uint8Array.of(0)
const verifiers = new WeakMap<Signer, KeyObject>()

/** The signer's public key, imported once. */
function verifierOf(signer: Signer): KeyObject {
  const known = verifiers.get(signer)
  if (known !== undefined) return known
  const { buffer, byteOffset, length } = signer.publicKey
  const key = Buffer.from(buffer, byteOffset, length)
  const verifier = createPublicKey({ key, format: 'der', type: 'spki' })
  verifiers.set(signer, verifier)
  return verifier
}

/** A row whose certificate is stored. */
export type IssuedRow = CertificateRow & {
  readonly certificate: Uint8Array
  readonly fingerprint: string
}

/** What `finish` needs of its surroundings. */
export interface IssuingDesk {
  readonly store: CaStore
  readonly log: CaLog
}

/** Signings under way, by store and serial: two retries of one intention wait for one signature. */
const underway = new WeakMap<CaStore, Map<string, Promise<IssuedRow>>>()

/**
 * Brings a record to its certificate: logs the issuance, signs, stores. A record that has one gives
 * it as it is. `before` goes to the log ahead of the issuance.
 * Throws CaError `log.unavailable`, `signer.unavailable`, `store.unavailable`, `issuer.mismatch`.
 */
export async function finish(
  recorded: Recorded,
  issuers: Issuers,
  desk: IssuingDesk,
  context: {
    readonly now: Instant
    readonly remoteAddress: string | null
    readonly before?: AttemptEvent
  },
): Promise<IssuedRow> {
  const { row } = recorded
  if (isIssued(row)) return row
  if (row.state !== 'intent') throw refuse('peer.revoked', 'it was revoked before it was issued')
  const signings = underway.get(desk.store) ?? new Map<string, Promise<IssuedRow>>()
  underway.set(desk.store, signings)
  const running = signings.get(row.serial)
  if (running !== undefined) return await running
  const signing = complete(recorded, issuers, desk, context)
  signings.set(row.serial, signing)
  try {
    return await signing
  } finally {
    signings.delete(row.serial)
  }
}

async function complete(
  recorded: Recorded,
  issuers: Issuers,
  { store, log }: IssuingDesk,
  context: Parameters<typeof finish>[3],
): Promise<IssuedRow> {
  const { row } = recorded
  const { now: at, remoteAddress, before } = context
  const { tenant, requestId, profile, subject, serial, parent, tokenId, issuer, spkiSha256 } = row
  const { notBefore, notAfter, decisionId } = row
  const issue: CaEvent = {
    code: 'cert.issue',
    at,
    tenant,
    requestId,
    remoteAddress,
    profile,
    subject,
    serial,
    parent,
    tokenId,
    issuer,
    spkiSha256,
    notBefore,
    notAfter,
    decisionId,
    revision: before?.revision ?? null,
    reasons: before?.reasons ?? [],
    resumed: !recorded.fresh,
  }
  const events = before === undefined ? [issue] : [before, issue]
  // Both are appended before either is awaited: one flush, in this order.
  await relying('log.unavailable', () => Promise.all(events.map((event) => log(event))))
  const certificate = await sign(recorded, issuers)
  const stored = await relying('store.unavailable', () =>
    store.complete(row, certificate, sha256Hex(certificate)),
  )
  // Revoked between record and signature: the row ended, and nobody is given the signature.
  if (stored.state === 'revoked') throw refuse('peer.revoked', 'it was revoked while it was issued')
  if (!isIssued(stored))
    throw new CaError('store.unavailable', 'local', 'the certificate was not stored')
  return stored
}

/** Whether a row has its certificate. */
function isIssued(row: CertificateRow): row is IssuedRow {
  return row.certificate !== null && row.fingerprint !== null
}
