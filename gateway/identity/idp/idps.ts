/** The companies whose own providers sign people in: entered, listed, switched off and removed by the owner. */
import { X509Certificate } from 'node:crypto'
import type { Actor } from '../account.ts'
import type { Accounts } from '../accounts.ts'
import { ROLES } from '../facts.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type IdentityLog, type IdpEvent } from '../events.ts'
import type { IdentityKeys } from '../keys.ts'
import type { IdpRow, IdpStore } from '../store.ts'
import { IdpError } from './errors.ts'
import type { RelyingParty } from './relying.ts'
import { sealSecret } from '../sealing.ts'

/** A provider as others see it: without the secret. */
export type Idp = Omit<IdpRow, 'sealedSecret'> & {
  /** What the company enters at its provider. */
  readonly redirectUri: string
  readonly logoutUri: string
  readonly jwksUri: string
}

export interface NewIdp {
  readonly id: string
  readonly name: string
  readonly issuer: string
  readonly clientId: string
  /** The client secret; absent where the client is public or signs with the gateway's key. */
  readonly secret?: string | null
  /** Prove ourselves with our own signing key (private_key_jwt). */
  readonly signs?: boolean
  readonly ca?: string | null
  /** The company; absent or null: its people are staff. */
  readonly vendor?: string | null
  readonly domains: readonly string[]
  readonly trustEmail?: boolean
  readonly groupsClaim?: string
  readonly groups?: Readonly<Record<string, string>>
  readonly roles?: Readonly<Record<string, string>>
  readonly methods?: Readonly<Record<string, string>>
  readonly loginSeconds?: number
  readonly listed?: boolean
}

export interface Idps {
  /**
   * Adds one after asking it who it is. Errors (IdentityError): idp.entry, idp.exists, idp.taken, idp.full,
   * idp.unreachable, idp.discovery, log.unavailable.
   */
  add(idp: NewIdp, by: Actor): Promise<Idp>
  find(id: string): Promise<Idp | undefined>
  list(): Promise<readonly Idp[]>
  /** Off: nobody signs in through it, and the logins of its people end. Errors: idp.unknown, log.*. */
  enable(id: string, enabled: boolean, by: Actor): Promise<Idp>
  /** For good: its people are disabled, their logins end, their addresses are free. Gives how many. Errors as enable. */
  remove(id: string, by: Actor): Promise<number>
}

export interface IdpsOptions {
  readonly issuer: string
  readonly store: IdpStore
  readonly accounts: Pick<Accounts, 'endLogins'>
  readonly relying: Pick<RelyingParty, 'check'>
  readonly keys: IdentityKeys
  readonly log: IdentityLog
  readonly now: () => number
}

export function openIdps(options: IdpsOptions): Idps {
  const { store, issuer } = options
  return {
    add: async (idp, by) => add(options, idp, by),
    async find(id) {
      const row = await store.findIdp(id)
      return row === undefined ? undefined : shown(issuer, row)
    },
    async list() {
      return (await store.listIdps()).map((row) => shown(issuer, row))
    },
    enable: async (id, enabled, by) => enable(options, id, enabled, by),
    remove: async (id, by) => remove(options, id, by),
  }
}

/** The address that the provider sends people back to: one for each, so that answers cannot be mixed up (RFC 9700 4.4.2). */
export function redirectUriOf(issuer: string, id: string): string {
  return `${issuer}/idp/${id}/callback`
}

function shown(issuer: string, { sealedSecret: _, ...row }: IdpRow): Idp {
  return {
    ...row,
    redirectUri: redirectUriOf(issuer, row.id),
    logoutUri: `${issuer}/idp/${row.id}/logout`,
    jwksUri: `${issuer}/jwks`,
  }
}

async function add(options: IdpsOptions, idp: NewIdp, by: Actor): Promise<Idp> {
  const row = rowOf(options, idp)
  await options.relying.check(row).catch((error: unknown) => {
    const unreachable = error instanceof IdpError && error.code === 'idp.unreachable'
    throw new IdentityError(unreachable ? 'idp.unreachable' : 'idp.discovery', { cause: error })
  })
  const { name, issuer, clientId, vendor, domains, groups, roles, methods } = row
  const changes = {
    name,
    issuer,
    client_id: clientId,
    vendor,
    domains,
    groups: pairs(groups),
    roles: pairs(roles),
    methods: pairs(methods),
    trust_email: row.trustEmail,
  }
  const event = eventOf(options, 'idp.create', row.id, by, changes)
  const refusals = { exists: 'idp.exists', taken: 'idp.taken', full: 'idp.full' } as const
  const act = async () => options.store.addIdp(row)
  const outcome = await recordAct(options.log, [event], refusals, act)
  if (outcome !== 'added') throw new IdentityError(`idp.${outcome}`)
  return shown(options.issuer, row)
}

const pairs = (map: Readonly<Record<string, string>>): readonly string[] =>
  Object.entries(map).map(([theirs, ours]) => `${theirs}=${ours}`)

async function enable(options: IdpsOptions, id: string, enabled: boolean, by: Actor): Promise<Idp> {
  const before = await options.store.findIdp(id)
  if (before === undefined) throw new IdentityError('idp.unknown')
  const event = eventOf(options, 'idp.change', id, by, { enabled })
  const act = async () =>
    (await options.store.setIdpEnabled(id, enabled, options.now())) ? 'changed' : 'unknown'
  const outcome = await recordAct(options.log, [event], { unknown: 'idp.unknown' }, act)
  if (outcome !== 'changed') throw new IdentityError('idp.unknown')
  if (!enabled) await endAll(options, await options.store.accountsOfIdp(id), by)
  return shown(options.issuer, { ...before, enabled, changedAt: options.now() })
}

async function remove(options: IdpsOptions, id: string, by: Actor): Promise<number> {
  if ((await options.store.findIdp(id)) === undefined) throw new IdentityError('idp.unknown')
  let people: readonly string[] = []
  await recordAct(options.log, [eventOf(options, 'idp.remove', id, by, {})], {}, async () => {
    people = await options.store.removeIdp(id, options.now())
    return 'removed'
  })
  await endAll(options, people, by)
  return people.length
}

/** Cuts everybody before it says that a record is missing. */
async function endAll(
  { accounts }: IdpsOptions,
  people: readonly string[],
  by: Actor,
): Promise<void> {
  let missing: unknown
  for (const sub of people)
    await accounts.endLogins(sub, by, 'disabled').catch((error: unknown) => (missing = error))
  if (missing !== undefined) throw missing as Error
}

function eventOf(
  { now }: IdpsOptions,
  code: IdpEvent['code'],
  idp: string,
  by: Actor,
  changes: IdpEvent['changes'],
): IdpEvent {
  return { code, at: now(), source: by.source, by: by.id, byParty: by.party, idp, changes }
}

const ID = /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/
const DOMAIN =
  /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$/
/** What policy and people may be told; `federated` is ours. */
const METHODS = ['webauthn', 'piv', 'totp', 'pwd', 'otp', 'mfa']
const PLAIN = /^[^\p{C}]{1,200}$/u
const MAX_LOGIN_S = 24 * 3_600

function rowOf({ keys, now }: IdpsOptions, idp: NewIdp): IdpRow {
  const vendor = idp.vendor ?? null
  const secret = idp.secret ?? null
  const at = now()
  const row: Omit<IdpRow, 'sealedSecret'> = {
    id: idp.id,
    name: idp.name.normalize('NFC').trim(),
    issuer: idp.issuer,
    clientId: idp.clientId,
    auth: idp.signs === true ? 'key' : secret === null ? 'none' : 'secret',
    ca: idp.ca ?? null,
    party: vendor === null ? 'staff' : 'vendor',
    vendor,
    domains: [...new Set(idp.domains.map((domain) => domain.trim().toLowerCase()))],
    trustEmail: idp.trustEmail ?? false,
    groupsClaim: idp.groupsClaim ?? 'groups',
    groups: idp.groups ?? {},
    roles: idp.roles ?? {},
    methods: idp.methods ?? {},
    loginSeconds: idp.loginSeconds ?? 8 * 3_600,
    listed: idp.listed ?? false,
    enabled: true,
    createdAt: at,
    changedAt: at,
  }
  const both = idp.signs === true && secret !== null
  if (both || !isEntry(row)) throw new IdentityError('idp.entry')
  const [key = ''] = keys.cookies
  return { ...row, sealedSecret: secret === null ? null : sealSecret(secret, row.id, key, 'idp') }
}

function isEntry(row: Omit<IdpRow, 'sealedSecret'>): boolean {
  const { groups, roles, methods, vendor, domains, loginSeconds } = row
  const checks = [
    ID.test(row.id),
    PLAIN.test(row.name),
    isIssuer(row.issuer),
    PLAIN.test(row.clientId),
    row.ca === null || isCertificate(row.ca),
    vendor === null || PLAIN.test(vendor),
    domains.length > 0 && domains.length <= 64 && domains.every((one) => DOMAIN.test(one)),
    PLAIN.test(row.groupsClaim),
    isMap(groups, (group) => PLAIN.test(group)),
    isMap(
      roles,
      (role) => vendor === null && ROLES.some((one) => one === role && one !== 'vendor'),
    ),
    isMap(methods, (method) => METHODS.includes(method)),
    Number.isSafeInteger(loginSeconds) && loginSeconds >= 60 && loginSeconds <= MAX_LOGIN_S,
  ]
  return checks.every(Boolean)
}

function isMap(map: Readonly<Record<string, string>>, ours: (value: string) => boolean): boolean {
  const entries = Object.entries(map)
  return (
    entries.length <= 256 && entries.every(([theirs, value]) => PLAIN.test(theirs) && ours(value))
  )
}

/** OpenID Connect Discovery 1.0, section 3: https, no query, no fragment; and nobody's name and password. */
function isIssuer(text: string): boolean {
  if (!URL.canParse(text) || text.length > 1_000) return false
  const url = new URL(text)
  return url.protocol === 'https:' && url.search === '' && url.hash === '' && url.username === ''
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).ca
  } catch {
    return false
  }
}
