/**
 * Where a node keeps people: accounts, second factors, sign-ins, what its provider hands out, and what they come in by: invitations,
 * companies, services. In its own file, or in the Redis that several gateways share; then all of them are one issuer, by one address and one set of keys.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { openIdentityKeys, type IdentityOptions } from './identity/index.ts'
import type { IdentityKeys } from './identity/keys.ts'
import { stands } from './identity/services/store.ts'
import type { RedisConnection } from './store/redis/connection.ts'
import {
  passkeyFields,
  RedisPasskeyStore,
  RedisTotpStore,
  totpFields,
} from './store/redis/factors.ts'
import { RedisIdpStore } from './store/redis/idps.ts'
import { RedisInvitationStore } from './store/redis/invitations.ts'
import { RedisOidcStore } from './store/redis/logins.ts'
import { accountFields, counterOf, RedisIdentityStore } from './store/redis/people.ts'
import { RedisProofs } from './store/redis/proofs.ts'
import { RedisServiceStore } from './store/redis/services.ts'
import { bringPeople, nameIssuerOf, whoIsThere, type Belongings } from './store/redis/sharing.ts'
import { peopleOfFile, type PeopleOfFile } from './store/sqlite/belongings.ts'
import { SqliteIdentityStore, SqliteOidcStore } from './store/sqlite/identity.ts'
import { SqliteIdpStore } from './store/sqlite/idps.ts'
import { SqliteInvitationStore } from './store/sqlite/invitations.ts'
import { SqlitePasskeyStore } from './store/sqlite/passkeys.ts'
import { SqliteServiceStore } from './store/sqlite/services.ts'
import { StoreError, type SqliteThread } from './store/sqlite/thread.ts'
import { SqliteTotpStore } from './store/sqlite/totp.ts'
import { now } from './time.ts'

export type PeopleStores = Pick<
  IdentityOptions,
  | 'store'
  | 'oidcStore'
  | 'idpStore'
  | 'passkeyStore'
  | 'totpStore'
  | 'invitationStore'
  | 'serviceStore'
  | 'proofs'
>

/** Those of a node that shares them with nobody. */
export function ownPeople(thread: SqliteThread): PeopleStores {
  return {
    store: new SqliteIdentityStore(thread),
    oidcStore: new SqliteOidcStore(thread),
    idpStore: new SqliteIdpStore(thread),
    passkeyStore: new SqlitePasskeyStore(thread),
    totpStore: new SqliteTotpStore(thread),
    invitationStore: new SqliteInvitationStore(thread),
    serviceStore: new SqliteServiceStore(thread),
    proofs: undefined,
  }
}

/** Who comes to share people. */
interface Sharing {
  /** `https://<public host>:<port>`. */
  readonly origin: string
  /** The data directory, whose `identity/keys.json` is made where there is none. */
  readonly directory: string
  readonly gateway: string
  /** Which data directory it is (`directoryId`). */
  readonly holder: string
  /** Locks from the same file, on Redis: nobody comes there who is shut out here, and is not there. */
  readonly lockFirst: () => Promise<void>
}

export interface SharedPeople {
  readonly stores: PeopleStores
  /** How many accounts came from the file. */
  readonly brought: number
  /** Ids of companies and services that stay in the file, because others on Redis are in the way. */
  readonly left: readonly string[]
  readonly diverged: Diverged
}

/** What happened in the file while a gateway that had brought its people was back at it: `sub`s. */
interface Diverged {
  /** Made there: nobody on Redis. */
  readonly unknown: readonly string[]
  /** Disabled there, and let in by Redis. */
  readonly disabled: readonly string[]
}

/**
 * Those that all gateways on this Redis share. Whoever is in the file goes there once, where nobody is yet. Rejects with
 * StoreError: `store.issuer`, `store.keys`, `store.people`; and as `openIdentityKeys`.
 */
export async function sharedPeople(
  redis: RedisConnection,
  thread: SqliteThread,
  { origin, directory, gateway, ...how }: Sharing,
): Promise<SharedPeople> {
  const keys = await openIdentityKeys(join(directory, 'identity', 'keys.json'))
  await assertOneIssuer(redis, `${origin}/oidc`, keys)
  const store = new RedisIdentityStore(redis, gateway)
  const people = await peopleOfFile(thread)
  const brought = await bring(redis, people, { store, ...how })
  const diverged = await divergedOf(people, store)
  const idpStore = new RedisIdpStore(redis)
  const invitationStore = new RedisInvitationStore(redis)
  const serviceStore = new RedisServiceStore(redis)
  const left = await bringWaysIn(thread, { idpStore, invitationStore, serviceStore }, how.holder)
  const [newest = '', ...older] = keys.cookies
  const stores = {
    store,
    oidcStore: new RedisOidcStore(redis, [newest, ...older]),
    idpStore,
    passkeyStore: new RedisPasskeyStore(redis),
    totpStore: new RedisTotpStore(redis),
    invitationStore,
    serviceStore,
    proofs: new RedisProofs(redis),
  }
  return { stores, brought, left, diverged }
}

/** Tells two sets of keys apart, and nothing of what they are: each is 256 random bits or more. */
function fingerprintOf({ signing, cookies }: IdentityKeys): string {
  const hash = createHash('sha256').update('sallyport identity keys v1')
  for (const { kid } of signing) hash.update(`\nsigning ${kid}`)
  for (const secret of cookies) hash.update(`\nsecret ${secret}`)
  return hash.digest('hex')
}

async function assertOneIssuer(
  redis: RedisConnection,
  issuer: string,
  keys: IdentityKeys,
): Promise<void> {
  const own = { issuer, keys: fingerprintOf(keys) }
  const first = await nameIssuerOf(redis, own)
  if (first.issuer !== own.issuer)
    throw new StoreError(
      'store.issuer',
      `the gateways on this Redis sign people in as ${first.issuer}, and this one would as ${own.issuer}: give all of them the public_host and the public_port that people dial`,
    )
  if (first.keys !== own.keys)
    throw new StoreError(
      'store.keys',
      'identity/keys.json in the data directory is not the one of the other gateways on this Redis: copy it from one of them, readable by the gateway alone (0600)',
    )
}

interface Bringing extends Pick<Sharing, 'holder' | 'lockFirst'> {
  readonly store: RedisIdentityStore
}

/** Gives how many accounts it took over. Throws StoreError `store.people` where others are there and not these: then nothing has changed. */
async function bring(
  redis: RedisConnection,
  people: PeopleOfFile,
  { store, holder, lockFirst }: Bringing,
): Promise<number> {
  const some = people.accounts.length > 0
  if (some && (await whoIsThere(redis, holder)) === 'others') await assertKnown(people, store)
  await lockFirst()
  if (!some) return 0
  const outcome = await bringPeople(redis, holder, belongingsOf(people))
  if (outcome === 'others') await assertKnown(people, store)
  return outcome === 'brought' ? people.accounts.length : 0
}

async function assertKnown(people: PeopleOfFile, store: RedisIdentityStore): Promise<void> {
  const { unknown } = await divergedOf(people, store)
  if (unknown.length === 0) return
  throw new StoreError(
    'store.people',
    `${unknown.length} of ${people.accounts.length} accounts in store.sqlite are not among those on this Redis (the first is ${unknown[0]}), and would be lost without a word: make these people there, then begin this gateway with a new data directory`,
  )
}

const PAGE = 1_000

async function divergedOf(
  { accounts }: PeopleOfFile,
  store: RedisIdentityStore,
): Promise<Diverged> {
  const enabled = new Map<string, boolean>()
  for (let after = '', read = accounts.length > 0; read;) {
    const page = await store.listAccounts(after, PAGE)
    for (const { sub, disabled } of page) enabled.set(sub, !disabled)
    after = page.at(-1)?.sub ?? ''
    read = page.length === PAGE
  }
  const rows = accounts.map(({ row }) => row)
  const subs = (some: typeof rows) => some.map(({ sub }) => sub)
  return {
    unknown: subs(rows.filter(({ sub }) => !enabled.has(sub))),
    disabled: subs(rows.filter(({ sub, disabled }) => disabled && enabled.get(sub) === true)),
  }
}

interface WaysIn {
  readonly idpStore: RedisIdpStore
  readonly invitationStore: RedisInvitationStore
  readonly serviceStore: RedisServiceStore
}

/** What the people in the file come in by, once for each directory: what was ended on Redis since stays ended. Gives the ids of what stays behind. */
async function bringWaysIn(
  thread: SqliteThread,
  { idpStore, invitationStore, serviceStore }: WaysIn,
  holder: string,
): Promise<readonly string[]> {
  const at = now()
  const companies = await idpStore.take(holder, await new SqliteIdpStore(thread).listIdps())
  const invited = await new SqliteInvitationStore(thread).listInvitations(Number.MAX_SAFE_INTEGER)
  const open = invited.filter(({ closed, expiresAt }) => closed === null && expiresAt > at)
  await invitationStore.take(holder, open)
  const listed = await new SqliteServiceStore(thread).listServices()
  const services = await serviceStore.take(
    holder,
    listed.filter((row) => stands(row, at)),
    at,
  )
  return [...companies, ...services]
}

function belongingsOf({ accounts, passkeys, totps, throttles, spent }: PeopleOfFile): Belongings {
  return {
    accounts: accounts.map(({ row, mail, idp }) => ({ mail, fields: accountFields(row, idp) })),
    passkeys: passkeys.map(passkeyFields),
    totps: totps.map((row) => ({ sub: row.sub, fields: totpFields(row) })),
    throttles: throttles.map(({ key, count, until }) => ({
      key: counterOf(key),
      count: String(count),
      until: String(until),
    })),
    spent,
  }
}
