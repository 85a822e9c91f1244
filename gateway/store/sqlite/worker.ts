/**
 * The only thread that touches store.sqlite. Requests that arrive together share one transaction,
 * so they share one fsync; where one of them fails, all are done again, each in a savepoint of its
 * own, so one failure does not undo another.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { rooms, type Operation, type Room } from './rooms.ts'

interface Request {
  readonly id: number
  readonly room: string
  readonly name: string
  readonly args: unknown
}
interface Reply {
  readonly id: number
  readonly value?: unknown
  readonly error?: { readonly name: string; readonly message: string; readonly code?: string }
}

const BATCH = 256
const STATEMENTS = 512
const table: Readonly<Record<string, Room>> = rooms

/** Compiles a statement the first time it is asked for: compiling takes longer than most of them run. */
class Database extends DatabaseSync {
  readonly #compiled = new Map<string, StatementSync>()
  override prepare(sql: string): StatementSync {
    const known = this.#compiled.get(sql)
    if (known !== undefined) return known
    if (this.#compiled.size >= STATEMENTS) this.#compiled.clear()
    const statement = super.prepare(sql)
    this.#compiled.set(sql, statement)
    return statement
  }
}

function open(path: string): DatabaseSync {
  const db = new Database(path)
  // FULL: a commit is on disk before its caller hears of it.
  db.exec(
    'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000; PRAGMA wal_autocheckpoint=4000',
  )
  db.exec(
    'CREATE TABLE IF NOT EXISTS room_version (room TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT',
  )
  for (const [name, room] of Object.entries(table)) migrate(db, name, room)
  return db
}

function migrate(db: DatabaseSync, name: string, room: Room): void {
  const row = db.prepare('SELECT version FROM room_version WHERE room = ?').get(name)
  const from = typeof row?.['version'] === 'number' ? row['version'] : 0
  if (from > room.migrations.length)
    throw new Error(`store.sqlite was written by a newer Sallyport (room ${name}, version ${from})`)
  for (let at = from; at < room.migrations.length; at++) {
    db.exec('BEGIN IMMEDIATE')
    db.exec(room.migrations[at] ?? '')
    db.prepare(
      'INSERT INTO room_version VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version',
    ).run(name, at + 1)
    db.exec('COMMIT')
  }
}

/** Runs one operation; whatever it throws undoes the batch. */
function perform(db: DatabaseSync, { id, room, name, args }: Request): Reply {
  const operation: Operation | undefined = table[room]?.operations[name]
  if (operation === undefined) throw new Error(`no operation ${room}.${name}`)
  return { id, value: operation(db, args as never) }
}

/** Runs one operation; whatever it throws undoes that operation alone. A savepoint costs as much as a small operation. */
function performAlone(db: DatabaseSync, request: Request): Reply {
  db.prepare('SAVEPOINT one').run()
  try {
    const reply = perform(db, request)
    db.prepare('RELEASE one').run()
    return reply
  } catch (error) {
    db.exec('ROLLBACK TO one; RELEASE one')
    return { id: request.id, error: describe(error) }
  }
}

function describe(error: unknown): NonNullable<Reply['error']> {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) }
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {}
  return { name: error.name, message: error.message, ...code }
}

function perBatch(db: DatabaseSync, batch: readonly Request[]): Reply[] {
  try {
    db.prepare('BEGIN IMMEDIATE').run()
    const replies = together(db, batch) ?? oneByOne(db, batch)
    db.prepare('COMMIT').run()
    return replies
  } catch (error) {
    // The commit itself failed (disk full, I/O): nobody may believe their write.
    if (db.isTransaction) db.exec('ROLLBACK')
    return batch.map(({ id }) => ({ id, error: describe(error) }))
  }
}

/** All of them; nothing was done where this gives nothing. */
function together(db: DatabaseSync, batch: readonly Request[]): Reply[] | undefined {
  try {
    return batch.map((request) => perform(db, request))
  } catch {
    // The one at fault will say so again, by itself.
    if (db.isTransaction) db.exec('ROLLBACK')
    db.exec('BEGIN IMMEDIATE')
    return undefined
  }
}

function oneByOne(db: DatabaseSync, batch: readonly Request[]): Reply[] {
  return batch.map((request) => performAlone(db, request))
}

const port = parentPort
if (port === null) throw new Error('worker.ts runs as a worker thread only')
const db = open((workerData as { path: string }).path)
port.on('message', (first: readonly Request[] | 'close') => {
  const batch: Request[] = []
  for (let next = first; ;) {
    if (next === 'close') {
      port.postMessage(perBatch(db, batch))
      db.close()
      port.close()
      return
    }
    batch.push(...next)
    const more = batch.length < BATCH ? receiveMessageOnPort(port) : undefined
    if (more === undefined) break
    next = (more as { message: readonly Request[] | 'close' }).message
  }
  port.postMessage(perBatch(db, batch))
})
port.postMessage([{ id: 0 } satisfies Reply])
