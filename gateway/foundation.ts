/** What is opened from the data directory before anything listens: lock, store, log, CA, identity. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { pino, type Logger } from 'pino'
import type { AuditLog, EpochedLog } from '#audit'
import type { CaEvent, CaLog } from '#ca'
import { openAuthority, type Authority, type LogAct } from './authority.ts'
import type { Config } from './config.ts'
import { openLogOf } from './epochs.ts'
import { caEvent } from './events/ca.ts'
import { identityEvent } from './events/identity.ts'
import { openIdentity, type Identity } from './identity/index.ts'
import { originOf } from './origin.ts'
import { SqliteCaStore } from './store/sqlite/ca.ts'
import { lockDirectory } from './store/sqlite/lock.ts'
import { SqliteThread } from './store/sqlite/thread.ts'
import { openStores, type Stores } from './stores.ts'
import { now } from './time.ts'
import { VERSION } from './version.ts'

/** A part that is undone when the node stops; the stack keeps the order. */
export type Undo = AsyncDisposableStack
/** Told of failures that have no caller to go to. */
export type Report = (error: unknown, what: string) => void

export { originOf, publicPort } from './origin.ts'
export { clock, now } from './time.ts'

export interface Foundation extends AsyncDisposable {
  readonly logger: Logger
  readonly thread: SqliteThread
  readonly stores: Stores
  /** Over all its epochs. */
  readonly log: EpochedLog
  readonly authority: Authority
  readonly identity: Identity
  readonly caStore: SqliteCaStore
  readonly caLog: CaLog
}

/** Lock, store, log, CA, identity: made at first start, opened ever after. */
export async function openFoundation(config: Config): Promise<Foundation> {
  await using undo = new AsyncDisposableStack()
  const logger = pino({ level: config.log_level, base: { gateway: config.gateway } })
  mkdirSync(config.data, { recursive: true, mode: 0o700 })
  undo.use(lockDirectory(join(config.data, 'lock')))
  const thread = undo.use(await SqliteThread.open(join(config.data, 'store.sqlite')))
  const log = undo.use(await openLogOf(config, now))
  if (log.resumed)
    logger.warn({ log: log.origin }, 'a rotation of the log was cut short; it is complete now')
  await log.append({
    code: 'node.start',
    message: `gateway ${config.gateway} starting`,
    status: 'success',
    data: { version: VERSION },
  })
  const authority = undo.use(await openAuthority(config, now, logAct(log)))
  const stores = await openStores(config, { thread, log, logger }, undo)
  const identity = undo.use(
    await openIdentity({
      origin: originOf(config),
      directory: config.data,
      ...stores.people,
      log: async (event) => void (await log.append(identityEvent(event))),
      now,
      report: (error, id) => logger.error({ err: error, id }, 'identity'),
    }),
  )
  const owned = undo.move()
  return {
    logger,
    thread,
    stores,
    log,
    authority,
    identity,
    caStore: new SqliteCaStore(thread),
    caLog: async (event: CaEvent) => void (await log.append(caEvent(event))),
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  }
}

/** An administrative act on the CA, in the log's words. */
function logAct(log: AuditLog): LogAct {
  return async ({ at, by, operation, verb, entity, message }) => {
    await log.append({
      code: 'admin.call',
      actor: { uid: by },
      time: at,
      status: 'success',
      message,
      data: { operation, verb, entity },
    })
  }
}
