/** A rotation that dies: `rotating-child.ts DIRECTORY KEYS STEP` is killed as the power cut would behind that step. */
import { randomBytes } from 'node:crypto'
import { rotateNodeLog } from '#audit'
import { epochKeys } from '../../gateway/epochs.ts'

const [directory = '', keys = '', at = ''] = process.argv.slice(2)
const rotated = await rotateNodeLog({
  directory,
  stem: 'sallyport.test/audit/n1',
  keys: epochKeys(keys),
  clock: { now: () => Date.now() },
  random: (n) => randomBytes(n),
  step: (name) => {
    if (name === at) process.kill(process.pid, 'SIGKILL')
  },
})
await rotated.log.close()
