/**
 * Where a node keeps its grants, the reviews of broken seals, the index of sessions, the locks, the devices, the auditors, the
 * answers to writes with a key and its people: in its own file, or in a Redis that several gateways share. What is not named here every gateway keeps for itself.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Logger } from 'pino'
import type { AuditLog } from '#audit'
import type { AnswerStore } from './answers.ts'
import type { Config } from './config.ts'
import type { Device, DeviceStore } from './devices/device.ts'
import type { SharedDevices } from './devices/ending.ts'
import type { ReviewStore } from './grants/review.ts'
import type { GrantStore } from './grants/store.ts'
import type { LockStore } from './locks/lock.ts'
import { originOf } from './origin.ts'
import type { GatewayPolicies } from './policy/gateways.ts'
import { ownPeople, sharedPeople, type PeopleStores, type SharedPeople } from './people-stores.ts'
import type { Changes } from './sessions/changes.ts'
import { LateEnds } from './sessions/late-ends.ts'
import type { SessionStore } from './sessions/session.ts'
import { MAX_AUDITORS, type Auditor, type AuditorStore } from './recordings/auditors.ts'
import type { RedisSettings } from './store-settings.ts'
import { RedisAnswerStore } from './store/redis/answers.ts'
import { RedisAuditorStore } from './store/redis/auditors.ts'
import { RedisChanges } from './store/redis/changes.ts'
import { RedisConnection, type RedisPlace } from './store/redis/connection.ts'
import { RedisDeviceStore } from './store/redis/devices.ts'
import { RedisGatewayNames } from './store/redis/gateways.ts'
import { RedisGrantStore } from './store/redis/grants.ts'
import { RedisLockStore } from './store/redis/locks.ts'
import { RedisGatewayPolicies } from './store/redis/policies.ts'
import { RedisReviewStore } from './store/redis/reviews.ts'
import { RedisSessionStore } from './store/redis/sessions.ts'
import { SqliteAnswerStore } from './store/sqlite/answers.ts'
import { SqliteAuditorStore } from './store/sqlite/auditors.ts'
import { SqliteDeviceStore } from './store/sqlite/devices.ts'
import { directoryId } from './store/sqlite/directory.ts'
import { SqliteGrantStore } from './store/sqlite/grants.ts'
import { SqliteLockStore } from './store/sqlite/locks.ts'
import { SqliteReviewStore } from './store/sqlite/reviews.ts'
import { SqliteSessionStore } from './store/sqlite/sessions.ts'
import { StoreError, type SqliteThread } from './store/sqlite/thread.ts'
import { now } from './time.ts'

export interface Stores {
  readonly grants: GrantStore
  readonly reviews: ReviewStore
  readonly sessions: SessionStore
  /** Sessions that were opened before the node came to share them: what a crash left open there. */
  readonly before: SessionStore | undefined
  /** Hands over what could not be told while the store was away. */
  readonly handOver: () => Promise<void>
  /** Rejects where what is shared takes no write: a full disk, a server that became a replica. */
  readonly writable: () => Promise<void>
  /** Epoch seconds by the clock that all who share the grants go by; undefined where nobody does. */
  readonly time: (() => Promise<number>) | undefined
  readonly locks: LockStore
  readonly devices: DeviceStore
  /** The same where others share them, each of whom has certificates of its own for them. */
  readonly sharedDevices: SharedDevices | undefined
  /** Whose keys open recordings. */
  readonly auditors: AuditorStore
  /** Of writes with a key. */
  readonly answers: AnswerStore
  readonly people: PeopleStores
  /** What others do to grants, locks, devices and people; undefined where there are no others. */
  readonly changes: Changes | undefined
  /** What each decides by; undefined where there are no others. */
  readonly policies: GatewayPolicies | undefined
}

/** Clocks that somebody keeps are closer. Seconds. */
const APART_S = 5

const SHARED = [
  'grants',
  'reviews of broken seals',
  'the index of sessions',
  'locks',
  'devices and their processes',
  'auditors',
  'answers to writes with a key',
  'accounts and their sign-ins',
  'passkeys and authenticator apps',
  'invitations',
  'companies',
  'services',
] as const
const OWN = [
  'inventories',
  'certificates and enrolments',
  'rollouts',
  'the policy in force, candidates and trials',
  'messages',
] as const

/** What a node has before it opens its stores. */
interface Before {
  readonly thread: SqliteThread
  readonly logger: Logger
  readonly log: Pick<AuditLog, 'vkeys' | 'append'>
}

/** Opens them. Rejects with StoreError: those of `RedisConnection.open` and `sharedPeople`, `store.name`, `store.left`. */
export async function openStores(
  config: Config,
  before: Before,
  undo: AsyncDisposableStack,
): Promise<Stores> {
  const own = ownStores(before.thread)
  const settings = config.store?.redis
  if (settings === undefined) return own
  await assertNothingLeft(own.grants)
  const redis = undo.use(await RedisConnection.open(placeOf(settings), config.tenant))
  const at = `${settings.host}:${settings.port}`
  return await sharedStores(config, { redis, at }, own, before)
}

/** All in the node's own file. */
function ownStores(thread: SqliteThread): Stores {
  return {
    grants: new SqliteGrantStore(thread),
    reviews: new SqliteReviewStore(thread),
    sessions: new SqliteSessionStore(thread),
    before: undefined,
    handOver: async () => await Promise.resolve(),
    writable: async () => await Promise.resolve(),
    time: undefined,
    locks: new SqliteLockStore(thread),
    devices: new SqliteDeviceStore(thread),
    sharedDevices: undefined,
    auditors: new SqliteAuditorStore(thread),
    answers: new SqliteAnswerStore(thread),
    people: ownPeople(thread),
    changes: undefined,
    policies: undefined,
  }
}

/** On the Redis that is `at` host and port, which first gets from `own` what is to stand there too. */
async function sharedStores(
  config: Config,
  { redis, at }: { readonly redis: RedisConnection; readonly at: string },
  own: Stores,
  before: Before,
): Promise<Stores> {
  const { logger } = before
  const { holder, take } = await takeName(redis, config.gateway, before)
  logger.warn(
    { redis: at, shared: SHARED, own: OWN },
    'grants, locks, devices and people are shared with the other gateways on this Redis; what is listed as own they do not see',
  )
  const grants = new RedisGrantStore(redis)
  await compareClocks(grants, logger)
  const locks = new RedisLockStore(redis)
  // First, for it may be refused: whoever is then has changed nothing.
  const { data: directory, gateway } = config
  const lockFirst = async () => await carryOver(own.locks, locks)
  const place = { origin: originOf(config), directory, gateway, holder, lockFirst }
  const shared = await sharedPeople(redis, before.thread, place)
  warnOfPeople(shared, logger)
  const devices = new RedisDeviceStore(redis)
  await takeDevices(own.devices, devices, holder, logger)
  const auditors = new RedisAuditorStore(redis)
  await takeAuditors(await own.auditors.list(), auditors, holder, before)
  const sessions = new LateEnds(new RedisSessionStore(redis, gateway))
  return {
    grants,
    reviews: new RedisReviewStore(redis),
    sessions,
    before: own.sessions,
    handOver: async () => await sessions.handOver(),
    time: async () => await grants.time(),
    // It changes nothing, so it costs no fsync; and is refused where anything would be.
    writable: async () => void (await take()),
    locks,
    devices,
    sharedDevices: devices,
    auditors,
    answers: new RedisAnswerStore(redis, gateway),
    people: shared.stores,
    changes: new RedisChanges(redis),
    policies: new RedisGatewayPolicies(redis),
  }
}

/** Says which data directory this is, and that this name is its own. Throws StoreError `store.name`. */
async function takeName(
  redis: RedisConnection,
  gateway: string,
  { thread, log }: Pick<Before, 'thread' | 'log'>,
): Promise<{ readonly holder: string; readonly take: () => Promise<boolean> }> {
  // The keys of a log are one data directory's, and of no other; kept, because a new epoch of the log has new ones.
  const keys = createHash('sha256').update(log.vkeys.join('\n')).digest('hex')
  const holder = await directoryId(thread, keys)
  const names = new RedisGatewayNames(redis)
  const take = async () => await names.take(gateway, holder)
  if (await take()) return { holder, take }
  throw new StoreError(
    'store.name',
    `another data directory is gateway ${gateway} on this Redis: give this one another name (gateway: …)`,
  )
}

async function compareClocks(grants: RedisGrantStore, logger: Logger): Promise<void> {
  const ahead = now() / 1000 - (await grants.time())
  if (Math.abs(ahead) > APART_S)
    logger.warn(
      { ahead_s: Math.round(ahead) },
      'the clocks of this gateway and of its Redis are apart: set them by the same time',
    )
}

/** Ids that a line of the start names; of more it has the number. */
const NAMED = 20

function warnOfPeople({ brought, left, diverged }: SharedPeople, logger: Logger): void {
  if (brought > 0)
    logger.warn({ accounts: brought }, 'the accounts of store.sqlite are on Redis from now on')
  if (left.length > 0)
    logger.warn(
      { left },
      'companies and services in store.sqlite that others on Redis are in the way of',
    )
  const { unknown, disabled } = diverged
  const named = (accounts: readonly string[]) => ({
    count: accounts.length,
    accounts: accounts.slice(0, NAMED),
  })
  if (unknown.length > 0)
    logger.warn(
      named(unknown),
      'accounts in store.sqlite that are not on Redis: nobody can sign in by them',
    )
  if (disabled.length > 0)
    logger.warn(
      named(disabled),
      'accounts that are disabled in store.sqlite and not on Redis: disable them again',
    )
}

/** A grant that stays behind in the file could be ended by nobody, and would stand again when the node goes back to it. */
async function assertNothingLeft(grants: GrantStore): Promise<void> {
  const [one] = await grants.running(1)
  if (one !== undefined)
    throw new StoreError(
      'store.left',
      `grant ${one.statement.id} in store.sqlite has not ended, and none there is used with Redis: start without it, revoke what stands, then come back`,
    )
}

/** What was shut out stays so, until somebody lifts it; what was lifted there already is not shut out again. */
async function carryOver(from: LockStore, to: LockStore): Promise<void> {
  for (const lock of await from.standingLocks())
    if ((await to.findLock(lock.id)) === undefined) await to.addLock(lock, Infinity)
}

/** Devices that are taken over at once. */
const AT_ONCE = 100

/** What was registered here stays so, and what is in quarantine here is so at all of them, until somebody ends it. */
async function takeDevices(
  from: DeviceStore,
  to: RedisDeviceStore,
  holder: string,
  logger: Logger,
): Promise<void> {
  const take = async (device: Device): Promise<void> => {
    const done = await to.take(holder, device, await from.processes(device.id))
    if (done !== 'known') logger.info({ device: device.id, done }, 'a device in store.sqlite')
  }
  const all = await from.list()
  for (let at = 0; at < all.length; at += AT_ONCE)
    await Promise.all(all.slice(at, at + AT_ONCE).map(take))
}

/** Whoever is taken over reads what every gateway records from then on: each is named, also in the audit log. */
async function takeAuditors(
  own: readonly Auditor[],
  to: RedisAuditorStore,
  holder: string,
  { log, logger }: Pick<Before, 'log' | 'logger'>,
): Promise<void> {
  const { taken, left } = await to.take(holder, own, MAX_AUDITORS)
  for (const { name, recipient, by } of taken) {
    logger.warn(
      { auditor: name, recipient, by },
      'an auditor in store.sqlite: what any of the gateways records is sealed to this key too from now on',
    )
    await log.append({
      code: 'admin.call',
      message: `auditor ${name} is taken over from store.sqlite: recordings of all gateways are sealed to this key too`,
      status: 'success',
      actor: { uid: 'gateway' },
      data: { operation: 'auditor:add', verb: 'create', entity: `auditor:${name}:${recipient}` },
    })
  }
  if (left.length > 0)
    logger.warn(
      { left },
      `auditors in store.sqlite that were not taken over: their name or key is another’s on Redis, or there are ${MAX_AUDITORS} already`,
    )
}

function placeOf({ ca_file, cert_file, key_file, ...rest }: RedisSettings): RedisPlace {
  const { host, port, username, password_file, servername, replicas } = rest
  const read = (path: string | undefined) =>
    path === undefined ? undefined : readFileSync(path, 'utf8').trim()
  const ca = read(ca_file)
  return {
    host,
    port,
    replicas,
    username,
    password: read(password_file),
    ...(ca === undefined
      ? {}
      : { tls: { ca, cert: read(cert_file), key: read(key_file), servername } }),
  }
}
