/** An evaluation whose thread gets no processor: `starved.ts DIRECTORY MS`. boot.test.ts. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Watchdog } from '../../../gateway/policy/watchdog.ts'

const [directory = '', ms = '0'] = process.argv.slice(2)
const nobody = new Int32Array(new SharedArrayBuffer(4))
const watchdog = new Watchdog({ directory, limitMs: 100 })
watchdog.guard.enter()
// Its thread is there and looks.
await sleep(500)
Atomics.wait(nobody, 0, 0, Number(ms))
watchdog.guard.leave()
process.stdout.write('decided')
process.exit()
