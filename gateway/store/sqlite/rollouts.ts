/** Rollouts in store.sqlite: one row each, and one for each device in each. */
import type { DatabaseSync } from 'node:sqlite'
import { meets } from '../../rollouts/rollout.ts'
import type {
  DeviceUpdate,
  Rollout,
  RolloutPlace,
  RolloutState,
  RolloutStore,
} from '../../rollouts/rollout.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Change = Parameters<RolloutStore['changeRollout']>[2]

function rowsOf<T>(rows: readonly Record<string, unknown>[]): T[] {
  return rows.map(({ row }) => JSON.parse(String(row)) as T)
}

const find = (db: DatabaseSync, id: string): Rollout | undefined =>
  rowsOf<Rollout>(db.prepare('SELECT row FROM rollout WHERE id = ?').all(id))[0]

const open = (db: DatabaseSync): Rollout[] =>
  rowsOf(db.prepare('SELECT row FROM rollout WHERE open = 1 ORDER BY at, id').all())

const isOpen = ({ state }: Rollout): number => (state === 'running' || state === 'paused' ? 1 : 0)

export const rolloutsRoom = {
  migrations: [
    `CREATE TABLE rollout (
       id TEXT PRIMARY KEY, at INTEGER NOT NULL, open INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
     CREATE INDEX rollout_open ON rollout (at) WHERE open = 1;
     CREATE TABLE rollout_device (
       rollout TEXT NOT NULL, device TEXT NOT NULL, row TEXT NOT NULL,
       PRIMARY KEY (rollout, device)) STRICT, WITHOUT ROWID;`,
  ],
  operations: {
    add(db: DatabaseSync, rollout: Rollout): boolean {
      if (open(db).some((other) => meets(other, rollout))) return false
      const { id, at } = rollout
      db.prepare('INSERT INTO rollout VALUES (?, ?, ?, ?)').run(
        ...([id, at, isOpen(rollout), JSON.stringify(rollout)] as const),
      )
      return true
    },
    find,
    list(
      db: DatabaseSync,
      { limit, after }: { limit: number; after: RolloutPlace | null },
    ): Rollout[] {
      const order = 'ORDER BY at DESC, id DESC LIMIT ?'
      if (after === null) return rowsOf(db.prepare(`SELECT row FROM rollout ${order}`).all(limit))
      const behind = db.prepare(`SELECT row FROM rollout WHERE (at, id) < (?, ?) ${order}`)
      return rowsOf(behind.all(after.at, after.id, limit))
    },
    open: (db: DatabaseSync, _: null): Rollout[] => open(db),
    change(
      db: DatabaseSync,
      { id, from, change }: { id: string; from: readonly RolloutState[]; change: Change },
    ): Rollout | undefined {
      const before = find(db, id)
      if (before === undefined || !from.includes(before.state)) return undefined
      const after = { ...before, ...change }
      db.prepare('UPDATE rollout SET open = ?, row = ? WHERE id = ?').run(
        ...([isOpen(after), JSON.stringify(after), id] as const),
      )
      return after
    },
    putUpdate(db: DatabaseSync, update: DeviceUpdate): void {
      db.prepare(
        `INSERT INTO rollout_device VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET row = excluded.row`,
      ).run(update.rollout, update.device, JSON.stringify(update))
    },
    update: (
      db: DatabaseSync,
      { rollout, device }: { rollout: string; device: string },
    ): DeviceUpdate | undefined =>
      rowsOf<DeviceUpdate>(
        db
          .prepare('SELECT row FROM rollout_device WHERE rollout = ? AND device = ?')
          .all(rollout, device),
      )[0],
    updates: (
      db: DatabaseSync,
      { rollout, limit, after }: { rollout: string; limit: number; after: string },
    ): DeviceUpdate[] =>
      rowsOf(
        db
          .prepare(
            `SELECT row FROM rollout_device WHERE rollout = ? AND device > ?
             ORDER BY device LIMIT ?`,
          )
          .all(rollout, after, limit),
      ),
  },
} as const satisfies Room

export class SqliteRolloutStore implements RolloutStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addRollout(rollout: Rollout): Promise<boolean> {
    return this.#thread.call('rollouts', 'add', rollout)
  }
  async findRollout(id: string): Promise<Rollout | undefined> {
    return this.#thread.call('rollouts', 'find', id)
  }
  async listRollouts(limit: number, after?: RolloutPlace): Promise<readonly Rollout[]> {
    return this.#thread.call('rollouts', 'list', { limit, after: after ?? null })
  }
  async openRollouts(): Promise<readonly Rollout[]> {
    return this.#thread.call('rollouts', 'open', null)
  }
  async changeRollout(
    id: string,
    from: readonly RolloutState[],
    change: Change,
  ): Promise<Rollout | undefined> {
    return this.#thread.call('rollouts', 'change', { id, from, change })
  }
  async putUpdate(update: DeviceUpdate): Promise<void> {
    await this.#thread.call('rollouts', 'putUpdate', update)
  }
  async findUpdate(rollout: string, device: string): Promise<DeviceUpdate | undefined> {
    return this.#thread.call('rollouts', 'update', { rollout, device })
  }
  async updatesOf(rollout: string): Promise<readonly DeviceUpdate[]> {
    return this.#thread.call('rollouts', 'updates', { rollout, limit: -1, after: '' })
  }
  async listUpdates(rollout: string, limit: number, after = ''): Promise<readonly DeviceUpdate[]> {
    return this.#thread.call('rollouts', 'updates', { rollout, limit, after })
  }
}
