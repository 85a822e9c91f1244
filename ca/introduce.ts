/**
 * A first certificate on somebody else's word: the device's maker (IDevID, IEEE 802.1AR) or a
 * registration authority (RFC 7030 3.7) that has met the device where we cannot.
 */
import { sha256Hex } from './algorithm.ts'
import { possess } from './applicant.ts'
import { OID } from './der/oid.ts'
import { DerError } from './der/reader.ts'
import { encodeUtf8 } from './der/text.ts'
import { refuse, relying, type CaError } from './errors.ts'
import type { CaFacts, DeviceRecord, EstOptions } from './est.ts'
import type { IssuedRow } from './issue.ts'
import { verifyIdevid, type Introduction } from './manufacturer.ts'
import { idFromSan, isId } from './name.ts'
import { claimsIssuer, verifyPeer, type Peer } from './path.ts'
import type { EstProfileName } from './profile.ts'
import {
  carryOut,
  linkingOf,
  newAttempt,
  requireDevice,
  type Attempt,
  type Errand,
  type Plan,
} from './registrar.ts'
import { base32 } from './serial.ts'
import type { KeyOwner, TokenRow } from './store.ts'
import { instant } from './time.ts'

type Vouch = NonNullable<CaFacts['enroll']>['token']

/** Who may ask for a first certificate of which device, and by what right. */
export interface Claim {
  readonly principal: string
  /** What is bound to the key in the issuance transaction; null where a principal may come again. */
  readonly token: TokenRow | null
  readonly device: DeviceRecord
  /** Whose the key is, where that was asked before. */
  readonly owner?: Promise<KeyOwner | undefined>
  /** What policy hears as the token: its own facts, or those of who vouches in its place. */
  readonly vouch: Vouch
  /** X520 serialNumber that a maker's certificate proves. */
  readonly serialNumber?: string
  /** What is said once the claim is used up; default: the text of a wrong token. */
  readonly spent?: () => CaError
}

/**
 * Steps 4 to 10 of a CSR's life for a connection that presents a certificate and no token.
 * `redeem` goes on from the claim. Throws CaError by code.
 */
export async function introduce(
  errand: Errand,
  redeem: (claim: Claim, errand: Errand) => Promise<Plan>,
): Promise<IssuedRow> {
  const { connection, options } = errand
  const [leaf] = connection.clientChain
  if (leaf === undefined) throw refuse('credential', 'a token is needed')
  const attempt = newAttempt('device.enroll')
  if (claimsIssuer(leaf, options.issuers())) {
    const authority = await authorityOf(errand)
    return await carryOut(attempt, errand, async () =>
      redeem(await onBehalf(attempt, authority, errand), errand),
    )
  }
  const manufacturers = options.manufacturers?.() ?? []
  if (manufacturers.length === 0 || errand.label.profile !== 'device')
    throw refuse('credential', 'the certificate presented enrols nobody here; a token is needed')
  return await carryOut(attempt, errand, async () => {
    const made = verifyIdevid(connection.clientChain, manufacturers, options.now())
    if (!made.ok) throw refuse(made.code, made.message)
    return redeem(await byMaker(attempt, made, errand), errand)
  })
}

/** The registration authority that asks. Throws CaError `operation.swapped`, `peer.*`, `device.*`. */
async function authorityOf({ connection, label, options }: Errand): Promise<Peer> {
  const { tenant, store } = options
  const terms = { tenant, store, issuers: options.issuers(), now: options.now() }
  const peer = await verifyPeer(connection.clientChain, { ...terms, purpose: 'est', kind: 'ra' })
  const served = options.labels?.some(({ profile }) => profile === 'ra') === true
  const isDevice = !peer.ok && (peer.code === 'peer.purpose' || peer.code === 'peer.name')
  if (isDevice || !served || label.profile !== 'device')
    throw refuse(
      'operation.swapped',
      'a certificate is renewed at simplereenroll; enrolling takes a token',
    )
  if (!peer.ok) throw refuse(peer.code, peer.message)
  if (peer.expiredSeconds > 0)
    throw refuse('peer.expired', 'the certificate of the registration authority has expired')
  return peer
}

async function onBehalf(attempt: Attempt, authority: Peer, errand: Errand): Promise<Claim> {
  const { applicant, options } = errand
  attempt.tokenId = `ra:${authority.device}`
  // The binding in the request ties it to the device's connection to the authority, not to this one.
  possess(applicant, 'foreign', linkingOf(errand))
  const record = await requireDevice(authority.device, options)
  if (record.state === 'quarantined')
    throw refuse('device.state', 'the registration authority is in quarantine')
  const id = named(errand)
  if (id === undefined)
    throw refuse('name.subject', 'a request that somebody passes on has to name its device')
  attempt.device = id
  const principal = `ra:${authority.device}:${id}`
  const device = await requireDevice(id, options)
  const vouch = {
    id: `ra:${authority.device}`,
    zone: record.zone,
    uses_left: 1,
    expires_at: Math.floor(authority.notAfter / 1_000),
  }
  return { principal, token: null, device, vouch }
}

/** The device a request names: by its SAN, or by a common name alone. */
function named({ applicant, options }: Errand): string | undefined {
  const { san, rdns } = applicant
  if (san !== null) return idFromRequest(san, options.tenant, 'device')
  const [common, more] = rdns.flat().filter(({ oid }) => oid === OID.commonName)
  return more === undefined && common !== undefined && isId(common.text) ? common.text : undefined
}

/** The one id a requested SAN names; undefined for whatever else it is. */
export function idFromRequest(
  san: Uint8Array,
  tenant: string,
  kind: EstProfileName,
): string | undefined {
  try {
    return idFromSan(san, tenant, kind)
  } catch (error) {
    if (error instanceof DerError) return undefined
    throw error
  }
}

async function byMaker(
  attempt: Attempt,
  { manufacturer, serialNumber, spkiSha256 }: Introduction,
  errand: Errand,
): Promise<Claim> {
  const { applicant, options } = errand
  const principal = `idevid:${manufacturer.name}:${serialNumber}`
  attempt.tokenId = principal
  const id = await relying('store.unavailable', () => manufacturer.claim(serialNumber))
  if (id === undefined)
    throw refuse('idevid.serial', 'the serial number is not on the list of its maker')
  attempt.device = id
  if (applicant.spkiSha256 === spkiSha256)
    throw refuse('key.bound', "the key is the maker's; a device makes its own")
  possess(applicant, errand.binding, linkingOf(errand))
  const device = await requireDevice(id, options)
  const token = await claimRow(principal, id, options)
  const spent = () => refuse('device.claimed', 'this device has been enrolled before')
  if (token.device !== id) throw spent()
  if (token.revokedAt !== null)
    throw refuse('device.claimed', 'an operator ended what the maker vouches for with this device')
  if (token.binding === null) {
    const { tenant, store, now } = options
    if (token.expiresAt <= now()) throw spent()
    const filter = { subject: id, profile: 'device', state: 'active', limit: 1 } as const
    const list = () => store.listCertificates(tenant, filter)
    if ((await relying('store.unavailable', list)).length > 0) throw spent()
  }
  const vouch = {
    id: principal,
    zone: device.zone,
    uses_left: token.binding === null ? 1 : 0,
    expires_at: Math.floor(token.expiresAt / 1_000),
  }
  return { principal, token, device, vouch, serialNumber, spent }
}

/** The last second that X.509 can write: a maker's device may be switched on at any time before. */
export const FOREVER = instant(Date.UTC(9999, 11, 31, 23, 59, 59))

const MAKERS = 'idevid:'

/** Whether the row stands for a maker's certificate and not for a token that somebody was given. */
export function isMakersClaim({ hash }: Pick<TokenRow, 'hash'>): boolean {
  return hash.startsWith(MAKERS)
}

/**
 * One row for each serial number of a maker, so that its first enrolment binds a key exactly as a
 * token's does. No password has this hash: a SHA-256 in hex holds no colon.
 */
async function claimRow(
  principal: string,
  device: string,
  { tenant, store, now, random }: EstOptions,
): Promise<TokenRow> {
  const hash = `${MAKERS}${sha256Hex(encodeUtf8(principal))}`
  const find = () => relying('store.unavailable', () => store.findToken(tenant, hash))
  const known = await find()
  if (known !== undefined) return known
  const row: TokenRow = {
    id: `t_${base32(random(16))}`,
    hash,
    tenant,
    profile: 'device',
    device,
    createdAt: now(),
    expiresAt: FOREVER,
    revokedAt: null,
    binding: null,
  }
  try {
    await store.addToken(row)
    return row
  } catch (cause) {
    // Somebody else was first: two requests of one device at once.
    const other = await find()
    if (other !== undefined) return other
    return await relying('store.unavailable', () => Promise.reject(cause as Error))
  }
}
