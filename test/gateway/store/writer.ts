/** A program that writes sessions as fast as they become durable, and says each that is. */
import { SqliteSessionStore } from '../../../gateway/store/sqlite/sessions.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'

const [, , path = ''] = process.argv
const store = new SqliteSessionStore(await SqliteThread.open(path))
for (let at = 0; ; at += 8)
  await Promise.all(
    Array.from({ length: 8 }, async (_, more) => {
      const id = `s_${String(at + more).padStart(26, '0')}`
      await store.add({
        id,
        grant: 'g',
        device: 'd',
        process: 'p',
        kind: 'tcp',
        identity: 'i',
        email: null,
        party: 'vendor',
        opened_at: at,
        expires_at: at,
        ended_at: null,
        reason: null,
        bytes_in: 0,
        bytes_out: 0,
        connections: 0,
        time_to_cut_ms: null,
      })
      process.stdout.write(`${id}\n`)
    }),
  )
