/** Renews the device of a directory once, and dies (kill -9) before the named change to its files. */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const [, , directory = '', at = '0'] = process.argv
const deadly = Number(at)
let changes = 0
let begun = false
for (const name of ['openSync', 'writeFileSync', 'fsyncSync', 'renameSync', 'rmSync'] as const) {
  const original = fs[name] as (...args: unknown[]) => unknown
  const counting = (...args: unknown[]) => {
    // What node itself opens while it loads is not the device's.
    if (begun && ++changes === deadly) process.kill(process.pid, 'SIGKILL')
    return original(...args)
  }
  Object.assign(fs, { [name]: counting })
}
syncBuiltinESMExports()

const { renewOnce } = await import('../renewing.ts')
begun = true
await renewOnce(directory)
process.stdout.write(`${changes}\n`)
