/** The thread that owns store.sqlite: what it has said is done is done, through failures, full disks and kill -9. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { newId } from '../../../gateway/ids.ts'
import { SqliteDeviceStore } from '../../../gateway/store/sqlite/devices.ts'
import {
  DirectoryInUse,
  DirectoryUnusable,
  lockDirectory,
} from '../../../gateway/store/sqlite/lock.ts'
import { SqliteSessionStore } from '../../../gateway/store/sqlite/sessions.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'sallyport-store-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

const device = (id: string, label = '') => ({
  id,
  zone: 'default',
  state: 'pending' as const,
  labels: { label },
  created_at: 0,
})
const processOf = (of: string) => ({
  device: of,
  id: 'plc',
  kind: 'tcp' as const,
  locality: 'device' as const,
  port: null,
  expect: {},
})

async function open(path: string): Promise<SqliteThread> {
  const thread = await SqliteThread.open(path)
  onTestFinished(() => thread[Symbol.asyncDispose]())
  return thread
}

test('what arrives together shares a transaction, and one failure does not undo another', async () => {
  const path = join(directory, 'batch.sqlite')
  const store = new SqliteDeviceStore(await open(path))
  const outcomes = await Promise.allSettled(
    Array.from({ length: 300 }, async (_, at) => {
      // Every third names a device that is not there, and breaks the foreign key.
      if (at % 3 === 0) await store.putProcess(processOf(`nowhere-${at}`))
      else await store.add(device(`d-${at}`))
    }),
  )
  expect(outcomes.map(({ status }) => status)).toEqual(
    Array.from({ length: 300 }, (_, at) => (at % 3 === 0 ? 'rejected' : 'fulfilled')),
  )
  const failure = outcomes[0]
  expect(failure?.status === 'rejected' && failure.reason).toMatchObject({
    name: 'StoreError',
    code: 'ERR_SQLITE_ERROR',
  })
  expect(await store.list()).toHaveLength(200)
})

test('an operation that nobody knows', async () => {
  const thread = await open(':memory:')
  await expect(thread.call('devices', 'drop' as never, null as never)).rejects.toMatchObject({
    name: 'StoreError',
  })
  await expect(
    thread.call('toString' as never, 'call' as never, null as never),
  ).rejects.toMatchObject({
    name: 'StoreError',
  })
})

test('after it is closed, calls say so and nothing hangs', async () => {
  const thread = await SqliteThread.open(join(directory, 'closed.sqlite'))
  const store = new SqliteDeviceStore(thread)
  const last = store.add(device('last'))
  await thread[Symbol.asyncDispose]()
  expect(await last).toBe(true)
  await expect(store.list()).rejects.toMatchObject({ code: 'store.closed' })
  await thread[Symbol.asyncDispose]()
})

test('kill -9 while it writes: every row it had acknowledged is there', async () => {
  for (let round = 0; round < 3; round++) {
    const path = join(directory, `killed-${round}.sqlite`)
    const child = spawn(process.execPath, [join(import.meta.dirname, 'writer.ts'), path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    child.on('close', () => resolve())
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (said.length > 29 * 100 * (round + 1)) child.kill('SIGKILL')
    })
    await ended
    const acknowledged = said.split('\n').filter((line) => line.length === 28)
    expect(acknowledged.length).toBeGreaterThan(50)
    const store = new SqliteSessionStore(await open(path))
    const kept = new Set((await store.open()).map(({ id }) => id))
    expect(acknowledged.filter((id) => !kept.has(id))).toEqual([])
  }
})

describe('a file that is not ours to open', () => {
  test('of a newer Sallyport', async () => {
    const path = join(directory, 'newer.sqlite')
    await (await SqliteThread.open(path))[Symbol.asyncDispose]()
    const db = new DatabaseSync(path)
    db.exec(`UPDATE room_version SET version = 99 WHERE room = 'grants'`)
    const before = db.prepare('SELECT * FROM room_version ORDER BY room').all()
    db.close()
    await expect(SqliteThread.open(path)).rejects.toThrow(
      /newer Sallyport \(room grants, version 99\)/,
    )
    const after = new DatabaseSync(path)
    expect(after.prepare('SELECT * FROM room_version ORDER BY room').all()).toEqual(before)
    after.close()
  })

  test('that is no database', async () => {
    const path = join(directory, 'text.sqlite')
    writeFileSync(path, 'not a database, but long enough to be looked at'.repeat(100))
    const before = readFileSync(path)
    await expect(SqliteThread.open(path)).rejects.toThrow()
    expect(readFileSync(path)).toEqual(before)
  })

  test('in a directory that is not there', async () => {
    await expect(SqliteThread.open(join(directory, 'no', 'store.sqlite'))).rejects.toThrow()
  })
})

describe('one gateway per directory', () => {
  test('a second is refused while the first runs, and not afterwards', () => {
    const path = join(directory, 'lock')
    const first = lockDirectory(path)
    expect(() => lockDirectory(path)).toThrow(DirectoryInUse)
    first[Symbol.dispose]()
    lockDirectory(path)[Symbol.dispose]()
  })

  test('what the system refuses is not said to be held by another gateway', () => {
    const path = join(directory, 'lock-text')
    writeFileSync(path, 'no lock, but long enough to be looked at'.repeat(100))
    for (const wrong of [path, join(directory, 'no', 'lock')]) {
      expect(() => lockDirectory(wrong)).toThrow(DirectoryUnusable)
      expect(() => lockDirectory(wrong)).toThrow('cannot be locked')
    }
  })

  test('a process that was killed holds nothing', async () => {
    const path = join(directory, 'lock-killed')
    const lock = join(import.meta.dirname, '../../../gateway/store/sqlite/lock.ts')
    const program = `const { lockDirectory } = await import(${JSON.stringify(lock)})
      globalThis.held = lockDirectory(${JSON.stringify(path)}); console.log('held'); setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    child.on('close', () => resolve())
    await new Promise((held) => child.stdout.once('data', held))
    expect(() => lockDirectory(path)).toThrow(DirectoryInUse)
    child.kill('SIGKILL')
    await ended
    lockDirectory(path)[Symbol.dispose]()
  })
})

/** Whether a file system of two megabytes can be had here; needs root and mount(8). */
function smallDisk(): string | undefined {
  const path = mkdtempSync(join(tmpdir(), 'sallyport-full-'))
  mkdirSync(path, { recursive: true })
  const made = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', path])
  if (made.status === 0) return path
  rmSync(path, { recursive: true })
  return undefined
}
const disk = smallDisk()
afterAll(() => {
  if (disk === undefined) return
  spawnSync('umount', [disk])
  rmSync(disk, { recursive: true })
})

test.skipIf(disk === undefined)(
  'a full disk (needs a tmpfs to fill): refused, nothing half done, and it goes on once there is room',
  async () => {
    const store = new SqliteSessionStore(await open(join(disk ?? '', 'store.sqlite')))
    const kept: string[] = []
    let refused: unknown
    const row = (id: string) => ({
      id,
      grant: 'g',
      device: 'x'.repeat(20_000),
      process: 'p',
      kind: 'tcp',
      identity: 'i',
      email: null,
      party: 'vendor',
      opened_at: 0,
      expires_at: 0,
      ended_at: null,
      reason: null,
      bytes_in: 0,
      bytes_out: 0,
      connections: 0,
      time_to_cut_ms: null,
    })
    while (refused === undefined) {
      const id = newId('s')
      await store.add(row(id)).then(
        () => kept.push(id),
        (error: unknown) => (refused = error),
      )
    }
    expect(refused).toMatchObject({ name: 'StoreError' })
    expect(kept.length).toBeGreaterThan(5)
    const there = (await store.open()).map(({ id }) => id)
    expect(there.toSorted()).toEqual(kept.toSorted())
  },
)
