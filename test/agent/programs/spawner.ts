/**
 * An agent's hand alone, as a process of its own: `spawner.ts SCRIPT [DATA [USER]]` starts a shell for SCRIPT as a
 * session would, as this very user or as USER, by root as nobody. Prints 1 when it runs, then what it says.
 * With USER it has a terminal.
 */
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawned } from '../../../agent-tunnel/agent/spawn/line.ts'
import { At } from '../../../agent-tunnel/agent/at.ts'
import { targetOf } from '../../../agent-tunnel/agent/target.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { systemClock } from '#tunnel'

const uid = process.getuid?.() ?? 0
const declaration = {
  argv: ['/bin/sh', '-c', process.argv[2] ?? ''],
  user: process.argv[4] ?? (uid === 0 ? 'nobody' : uid),
  terminal: process.argv[4] !== undefined,
}
const target = targetOf(new At('test', 'tool', { spawn: declaration }))
if (target.kind !== 'spawn') throw new Error('no program')
const room = {
  scope: new ProcessScope(),
  clock: systemClock,
  log: (_level: string, event: string) => event === 'spawn.started' && console.log('1'),
}
const ask = { kind: 'spawn', session: 's', process: 'tool', remainingMs: 1, modbus: undefined }
const line = await spawned.open(
  { ...target, dataDir: process.argv[3] ?? mkdtempSync(join(tmpdir(), 'sallyport-spawner-')) },
  { ...ask, terminal: { rows: 24, cols: 80, term: 'xterm' } } as never,
  room as never,
  new AbortController().signal,
)
const stream = {
  consumed: () => {},
  end: () => {},
  reset: () => {},
  signal: (payload: Uint8Array) => console.log(Buffer.from(payload).toString()),
  write: (chunk: Uint8Array) => process.stdout.write(Uint8Array.from(chunk)),
}
line.flow({
  stream: stream as never,
  end: (code, message) => {
    console.log(code, message)
    process.exit(1)
  },
  over: () => {},
  lookNow: () => {},
})
process.stdin.on('end', () => process.exit(0)).resume()
