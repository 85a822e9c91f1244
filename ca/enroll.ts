/** A first certificate: a one-time token says which device may have one (RFC 7030 4.2.1). */
import { sha256Hex } from './algorithm.ts'
import { possess } from './applicant.ts'
import { OID } from './der/oid.ts'
import { encodeUtf8 } from './der/text.ts'
import { CaError, refuse, relying } from './errors.ts'
import type { DeviceRecord } from './est.ts'
import type { IssuedRow } from './issue.ts'
import { FOREVER, introduce, idFromRequest, isMakersClaim, type Claim } from './introduce.ts'
import { isId, isTenant } from './name.ts'
import { recallSeconds, type EstProfileName } from './profile.ts'
import {
  carryOut,
  keyOwner,
  linkingOf,
  newAttempt,
  recall,
  recallOf,
  refuseTakenKey,
  requireDevice,
  type Errand,
  type Plan,
} from './registrar.ts'
import { base32 } from './serial.ts'
import type { CaStore, TokenRow } from './store.ts'
import { instant, type Instant, type Random } from './time.ts'

const PREFIX = 'spt_'
const MINUTE = 60
const MONTH = 30 * 86_400

/**
 * Makes a token for one device and stores its SHA-256. `text` is shown once and kept nowhere.
 * `lifetimeSeconds` 60 to 30 d: how long a first use is possible.
 * Throws CaError `profile` for values outside these, `store.unavailable`.
 */
export async function newToken(
  options: {
    readonly tenant: string
    readonly device: string
    /** What it is good for; default `device`. */
    readonly profile?: EstProfileName
    readonly lifetimeSeconds: number
    readonly now: Instant
    readonly random: Random
  },
  store: Pick<CaStore, 'addToken'>,
): Promise<{ readonly text: string; readonly row: TokenRow }> {
  const { tenant, device, lifetimeSeconds, now, random } = options
  if (!isTenant(tenant) || !isId(device))
    throw new CaError('profile', 'local', 'a token needs a tenant and a device id')
  requireTokenLife(lifetimeSeconds)
  const text = `${PREFIX}${base32(random(20))}`
  const row: TokenRow = {
    id: `t_${base32(random(16))}`,
    hash: hashToken(text),
    tenant,
    profile: options.profile ?? 'device',
    device,
    createdAt: now,
    expiresAt: instant(now + Math.floor(lifetimeSeconds) * 1_000),
    revokedAt: null,
    binding: null,
  }
  await relying('store.unavailable', () => store.addToken(row))
  return { text, row }
}

/** Why a token cannot be freed for another key. `changed`: somebody else did something to it meanwhile. */
export type TokenObstacle = 'unused' | 'revoked' | 'in use' | 'changed'

/**
 * What stands in the way of another key; undefined where nothing does. A certificate is in use once a
 * tunnel was opened or a renewal made with it. A maker's claim can be freed whenever what it got has
 * ended, for its device has no other: also one that was revoked, or ended with its device.
 */
export async function obstacleToRebinding(
  token: TokenRow,
  store: Pick<CaStore, 'findCertificate' | 'listCertificates'>,
): Promise<Exclude<TokenObstacle, 'changed'> | undefined> {
  const { tenant, device, profile, binding, revokedAt } = token
  const lasting = isMakersClaim(token)
  if (revokedAt !== null && !lasting) return 'revoked'
  if (binding === null) return revokedAt === null ? 'unused' : undefined
  const [row, active] = await relying('store.unavailable', () =>
    Promise.all([
      store.findCertificate(binding.serial),
      store.listCertificates(tenant, { subject: device, profile, state: 'active' }),
    ]),
  )
  const over = lasting && row?.state === 'revoked'
  if (row === undefined || (row.firstUsedAt !== null && !over)) return 'in use'
  return active.some(({ parent }) => parent === binding.serial) ? 'in use' : undefined
}

/**
 * Lets another key redeem a used token for `lifetimeSeconds` more, a maker's claim for ever: first `end`
 * revokes the certificate that the first key got, as any other, then the token is free. A crash in
 * between leaves it bound to what was revoked, and it can be done again. Gives what stood in the way;
 * then nothing was done, unless that is `changed`. Throws CaError `profile`, `store.unavailable`, and as `end`.
 */
export async function rebindToken(
  token: TokenRow,
  request: { readonly lifetimeSeconds: number; readonly now: Instant },
  desk: {
    readonly store: Pick<CaStore, 'findCertificate' | 'listCertificates' | 'rebindToken'>
    readonly end: (serial: string) => Promise<unknown>
  },
): Promise<TokenObstacle | undefined> {
  const { lifetimeSeconds, now } = request
  requireTokenLife(lifetimeSeconds)
  const { tenant, id, binding } = token
  const obstacle = await obstacleToRebinding(token, desk.store)
  if (obstacle !== undefined) return obstacle
  if (binding !== null) {
    const find = () => desk.store.findCertificate(binding.serial)
    const row = await relying('store.unavailable', find)
    if (row?.state !== 'revoked') await desk.end(binding.serial)
  }
  const lift = isMakersClaim(token)
  const expiresAt = lift ? FOREVER : instant(now + Math.floor(lifetimeSeconds) * 1_000)
  const free = () => desk.store.rebindToken(tenant, id, { expiresAt, lift })
  return (await relying('store.unavailable', free)) ? undefined : 'changed'
}

function requireTokenLife(seconds: number): void {
  if (!(seconds >= MINUTE && seconds <= MONTH))
    throw new CaError('profile', 'local', 'a token can be used for 60 seconds to 30 days')
}

/** What is stored of a token. 160 random bits need no salt and no slow hash. */
function hashToken(text: string): string {
  return sha256Hex(encodeUtf8(text))
}

interface Credential {
  readonly user: string
  readonly password: string
}

/** Making one takes longer than it takes to read a credential. */
const UTF8 = new TextDecoder('utf-8', { fatal: true })

/** RFC 7617: base64 of `user:password`, UTF-8. Undefined if it is not that. */
function readBasic(header: string): Credential | undefined {
  const [scheme, value, more] = header.trim().split(/ +/)
  if (scheme?.toLowerCase() !== 'basic' || value === undefined || more !== undefined)
    return undefined
  if (value.length > 512) return undefined
  let text: string
  try {
    const bytes = Uint8Array.fromBase64(value, { lastChunkHandling: 'strict' })
    text = UTF8.decode(bytes)
  } catch {
    return undefined
  }
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : { user: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** One text for unknown, expired, spent and malformed: a guesser learns nothing. */
function notValid(): CaError {
  return refuse('credential', 'the token or password is not valid')
}

/**
 * The token a Basic header names, while it can be used or its request repeated. Throws CaError
 * `credential` and `store.unavailable`. Wrong guesses change nothing.
 */
async function identify(header: string, { options, lifetimeSeconds }: Errand): Promise<TokenRow> {
  const { tenant, store, now } = options
  const credential = readBasic(header)
  if (credential === undefined) throw notValid()
  const hash = hashToken(credential.password)
  const token = await relying('store.unavailable', () => store.findToken(tenant, hash))
  if (token === undefined || token.revokedAt !== null) throw notValid()
  if (credential.user !== '' && credential.user !== token.device) throw notValid()
  const { binding } = token
  const windowEnds = (binding?.at ?? 0) + recallSeconds(lifetimeSeconds) * 1_000
  if (now() >= (binding === null ? token.expiresAt : windowEnds)) throw notValid()
  return token
}

/**
 * Steps 4 to 10 of a CSR's life (docs/issuance.md) for the token in `authorization` (Basic), or for the
 * certificate of a maker or of a registration authority. Throws CaError by code; a refusal leaves no
 * trace but its log event.
 */
export async function enroll(
  authorization: string | undefined,
  errand: Errand,
): Promise<IssuedRow> {
  if (authorization === undefined) return await introduce(errand, redeem)
  const attempt = newAttempt('device.enroll')
  return await carryOut(attempt, errand, async () => {
    // Asked beside the token: the store answers both in one turn.
    const owner = keyOwner(errand)
    const [token] = await Promise.all([identify(authorization, errand), owner])
    attempt.tokenId = token.id
    attempt.device = token.device
    if (token.profile !== errand.label.profile)
      throw refuse('token.label', `the token is for ${token.profile} certificates`)
    possess(errand.applicant, errand.binding, linkingOf(errand))
    const device = await requireDevice(token.device, errand.options)
    const vouch = {
      id: token.id,
      zone: device.zone,
      uses_left: token.binding === null ? 1 : 0,
      expires_at: Math.floor(token.expiresAt / 1_000),
    }
    return await redeem({ principal: `token:${token.id}`, token, device, vouch, owner }, errand)
  })
}

/** Names, key, recall, and what policy has to know, for somebody who may ask for `claim.device`. */
async function redeem(claim: Claim, errand: Errand): Promise<Plan> {
  const { applicant, options, label } = errand
  const { token, device, principal } = claim
  const bound = token?.binding ?? null
  if (bound !== null && bound.spkiSha256 !== applicant.spkiSha256)
    throw refuse('token.bound', 'the token was used with another key')
  const claimed = label.names === 'ignore' ? null : checkNames(errand, device)
  const again = recallOf(principal, 'simpleenroll', errand)
  // What was never used has granted nothing.
  const unused = token !== null && bound === null
  const [known] = await Promise.all([
    unused ? undefined : recall(again.key, device, options),
    refuseTakenKey(device.id, errand, claim.owner),
  ])
  if (known !== undefined) return { known }
  // What it was used for is no longer good, and it cannot be used for anything else.
  if (bound !== null && device.state !== 'quarantined') throw claim.spent?.() ?? notValid()
  return {
    device,
    facts: {
      enroll: {
        token: claim.vouch,
        key: { alg: applicant.key.algorithm, hardware: false },
        claimed_serial: claim.serialNumber ?? claimed,
      },
      renew: null,
    },
    principal,
    ask: { recall: again, parent: null, tokenId: token?.id ?? null },
  }
}

/**
 * Whatever a request says of itself must be what the record says; saying nothing is fine. Gives the
 * serial number it claims. Throws CaError `name.subject`, `name.san`: nothing is silently rewritten.
 */
function checkNames({ applicant, label, options }: Errand, device: DeviceRecord): string | null {
  const { rdns, san } = applicant
  let claimed: string | null = null
  for (const { oid, text } of rdns.flat()) {
    if (oid === OID.serialNumber) claimed = text
    const wanted = { [OID.commonName]: device.id, [OID.serialNumber]: device.serialNumber }[oid]
    if (wanted === undefined || text !== wanted)
      throw refuse(
        'name.subject',
        `${FIELDS[oid] ?? oid} in the subject is not what the device record says`,
      )
  }
  const named = san === null ? device.id : idFromRequest(san, options.tenant, label.profile)
  if (named !== device.id)
    throw refuse(
      'name.san',
      'subjectAltName is not the one URI of this device; leave it out or correct it',
    )
  return claimed
}

const FIELDS: Readonly<Record<string, string>> = {
  [OID.commonName]: 'commonName',
  [OID.serialNumber]: 'serialNumber',
  [OID.organization]: 'organizationName',
}
