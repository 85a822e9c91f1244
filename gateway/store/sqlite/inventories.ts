/** What devices expose and what of it was accepted, in store.sqlite. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type { Baseline, Exposed, InventoryStore, KeptInventory } from '../../devices/inventory.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Row = Record<string, SQLOutputValue>

function processesOf(row: Row): Exposed[] {
  return JSON.parse(String(row['processes'])) as Exposed[]
}

export const inventoriesRoom = {
  migrations: [
    `CREATE TABLE inventory (
       device TEXT PRIMARY KEY, hash TEXT NOT NULL, processes TEXT NOT NULL,
       unreadable INTEGER NOT NULL, at INTEGER NOT NULL) STRICT;
     CREATE TABLE baseline (
       device TEXT PRIMARY KEY, hash TEXT NOT NULL, processes TEXT NOT NULL,
       at INTEGER NOT NULL, by TEXT NOT NULL) STRICT;`,
  ],
  operations: {
    inventory(db: DatabaseSync, device: string): KeptInventory | undefined {
      const row = db.prepare('SELECT * FROM inventory WHERE device = ?').get(device)
      if (row === undefined) return undefined
      return {
        hash: String(row['hash']),
        processes: processesOf(row),
        unreadable: Number(row['unreadable']),
        at: Number(row['at']),
      }
    },
    put(db: DatabaseSync, args: { device: string; inventory: KeptInventory }): void {
      const { hash, processes, unreadable, at } = args.inventory
      db.prepare(
        `INSERT INTO inventory VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET hash = excluded.hash, processes = excluded.processes,
           unreadable = excluded.unreadable, at = excluded.at`,
      ).run(args.device, hash, JSON.stringify(processes), unreadable, at)
    },
    baseline(db: DatabaseSync, device: string): Baseline | undefined {
      const row = db.prepare('SELECT * FROM baseline WHERE device = ?').get(device)
      if (row === undefined) return undefined
      return {
        hash: String(row['hash']),
        processes: processesOf(row),
        at: Number(row['at']),
        by: String(row['by']),
      }
    },
    accept(db: DatabaseSync, args: { device: string; baseline: Baseline }): void {
      const { hash, processes, at, by } = args.baseline
      db.prepare(
        `INSERT INTO baseline VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET hash = excluded.hash, processes = excluded.processes,
           at = excluded.at, by = excluded.by`,
      ).run(args.device, hash, JSON.stringify(processes), at, by)
    },
  },
} satisfies Room

export class SqliteInventoryStore implements InventoryStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  inventory(device: string): Promise<KeptInventory | undefined> {
    return this.#thread.call('inventories', 'inventory', device)
  }
  async putInventory(device: string, inventory: KeptInventory): Promise<void> {
    await this.#thread.call('inventories', 'put', { device, inventory })
  }
  baseline(device: string): Promise<Baseline | undefined> {
    return this.#thread.call('inventories', 'baseline', device)
  }
  async accept(device: string, baseline: Baseline): Promise<void> {
    await this.#thread.call('inventories', 'accept', { device, baseline })
  }
}
