/**
 * A gateway that dies while it rotates: `rotating-live-child.ts DIRECTORY KEYS STEP ACKED` appends without end, notes in
 * ACKED what it was told is durable, and is killed as the power cut would behind that step of a rotation.
 */
import { randomBytes } from 'node:crypto'
import { openSync, writeSync } from 'node:fs'
import { openEpoched } from '#audit'
import { epochKeys } from '../../gateway/epochs.ts'
import { start, stats } from './fixture.ts'

const [directory = '', keys = '', at = '', acked = ''] = process.argv.slice(2)
const file = openSync(acked, 'a')
const log = await openEpoched({
  directory,
  stem: 'sallyport.test/audit/n1',
  keys: epochKeys(keys),
  clock: { now: () => Date.now() },
  random: (n) => randomBytes(n),
  step: (name) => {
    if (name === at) process.kill(process.pid, 'SIGKILL')
  },
})
await log.append(start)
async function caller(): Promise<never> {
  for (let n = 0; ; n++) writeSync(file, `${(await log.append(stats(n))).uid}\n`)
}
for (let i = 0; i < 8; i++) void caller()
for (let n = 0; n < 20; n++) await log.append(stats(n))
await log.rotate()
// Behind the last step: some of it is written in the next epoch.
for (let n = 0; n < 20; n++) await log.append(stats(n))
process.kill(process.pid, 'SIGKILL')
