/** Devices and their processes in store.sqlite. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type {
  Device,
  DeviceState,
  DeviceStore,
  Expectation,
  Locality,
  Process,
  ProcessKind,
} from '../../devices/device.ts'
import type { Followed, FollowedStore } from '../../devices/ending.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Row = Record<string, SQLOutputValue>

function toDevice(row: Row): Device {
  return {
    id: String(row['id']),
    zone: String(row['zone']),
    state: String(row['state']) as DeviceState,
    labels: JSON.parse(String(row['labels'])) as Record<string, string>,
    created_at: Number(row['created_at']),
  }
}

function toProcess(row: Row): Process {
  return {
    device: String(row['device']),
    id: String(row['id']),
    kind: String(row['kind']) as ProcessKind,
    locality: String(row['locality']) as Locality,
    port: row['port'] === null ? null : Number(row['port']),
    expect: JSON.parse(String(row['expect'])) as Expectation,
  }
}

function find(db: DatabaseSync, id: string): Device | undefined {
  const row = db.prepare('SELECT * FROM device WHERE id = ?').get(id)
  return row === undefined ? undefined : toDevice(row)
}

export const devicesRoom = {
  migrations: [
    `CREATE TABLE device (
       id TEXT PRIMARY KEY, zone TEXT NOT NULL, state TEXT NOT NULL, labels TEXT NOT NULL,
       created_at INTEGER NOT NULL) STRICT;
     CREATE TABLE process (
       device TEXT NOT NULL REFERENCES device (id), id TEXT NOT NULL, kind TEXT NOT NULL,
       locality TEXT NOT NULL, port INTEGER, expect TEXT NOT NULL,
       PRIMARY KEY (device, id)) STRICT, WITHOUT ROWID;`,
    `CREATE TABLE device_ending (
       device TEXT PRIMARY KEY, mark TEXT NOT NULL, compromised TEXT) STRICT, WITHOUT ROWID;`,
  ],
  operations: {
    add(db: DatabaseSync, device: Device): boolean {
      const { changes } = db
        .prepare('INSERT INTO device VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING')
        .run(device.id, device.zone, device.state, JSON.stringify(device.labels), device.created_at)
      return Number(changes) === 1
    },
    find(db: DatabaseSync, id: string): Device | undefined {
      return find(db, id)
    },
    list(db: DatabaseSync, _: null): Device[] {
      return db.prepare('SELECT * FROM device ORDER BY id').all().map(toDevice)
    },
    move(
      db: DatabaseSync,
      args: { id: string; from: readonly DeviceState[]; to: DeviceState },
    ): Device | undefined {
      const before = find(db, args.id)
      if (before === undefined || !args.from.includes(before.state)) return undefined
      db.prepare('UPDATE device SET state = ? WHERE id = ?').run(args.to, args.id)
      return find(db, args.id)
    },
    putProcess(db: DatabaseSync, process: Process): void {
      db.prepare(
        `INSERT INTO process VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET kind = excluded.kind, locality = excluded.locality,
           port = excluded.port, expect = excluded.expect`,
      ).run(
        process.device,
        process.id,
        process.kind,
        process.locality,
        process.port,
        JSON.stringify(process.expect),
      )
    },
    findProcess(db: DatabaseSync, args: { device: string; id: string }): Process | undefined {
      const row = db
        .prepare('SELECT * FROM process WHERE device = ? AND id = ?')
        .get(args.device, args.id)
      return row === undefined ? undefined : toProcess(row)
    },
    followed(db: DatabaseSync, device: string): Followed | undefined {
      const row = db
        .prepare('SELECT mark, compromised FROM device_ending WHERE device = ?')
        .get(device)
      if (row === undefined) return undefined
      const { mark, compromised } = row
      return { mark: String(mark), compromised: compromised === null ? null : String(compromised) }
    },
    follow(
      db: DatabaseSync,
      { device, mark, compromised }: Followed & { readonly device: string },
    ): void {
      db.prepare(
        `INSERT INTO device_ending VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET mark = excluded.mark, compromised = excluded.compromised`,
      ).run(device, mark, compromised)
    },
    processes(db: DatabaseSync, device: string): Process[] {
      return db
        .prepare('SELECT * FROM process WHERE device = ? ORDER BY id')
        .all(device)
        .map(toProcess)
    },
  },
} satisfies Room

/** Endings of devices that gateways share, as this one has carried them out: in the file of its certificates. */
export class SqliteFollowedStore implements FollowedStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  followed(device: string): Promise<Followed | undefined> {
    return this.#thread.call('devices', 'followed', device)
  }
  async follow(device: string, ending: Followed): Promise<void> {
    await this.#thread.call('devices', 'follow', { device, ...ending })
  }
}

export class SqliteDeviceStore implements DeviceStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  add(device: Device): Promise<boolean> {
    return this.#thread.call('devices', 'add', device)
  }
  find(id: string): Promise<Device | undefined> {
    return this.#thread.call('devices', 'find', id)
  }
  list(): Promise<readonly Device[]> {
    return this.#thread.call('devices', 'list', null)
  }
  move(id: string, from: readonly DeviceState[], to: DeviceState): Promise<Device | undefined> {
    return this.#thread.call('devices', 'move', { id, from, to })
  }
  async putProcess(process: Process): Promise<void> {
    await this.#thread.call('devices', 'putProcess', process)
  }
  findProcess(device: string, id: string): Promise<Process | undefined> {
    return this.#thread.call('devices', 'findProcess', { device, id })
  }
  processes(device: string): Promise<readonly Process[]> {
    return this.#thread.call('devices', 'processes', device)
  }
}
