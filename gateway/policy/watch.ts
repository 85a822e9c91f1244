/** The thread of the watchdog (watchdog.ts). It ends the process with the code a supervisor restarts on. */
import { writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { PolicySlots } from './slots.ts'
import { BEGUN, ENDED, WHOSE } from './watchdog.ts'
import type { Blamed, Orders } from './watchdog.ts'

const { shared, directory, limitMs } = workerData as Orders
const counts = new Int32Array(shared)
let blamed: Blamed = [null, null]
let running = -1
let ticks = 0
let last = performance.now()
const tickMs = limitMs / 5

parentPort?.on('message', (named: Blamed) => {
  blamed = named
})

function end(): void {
  const digest = blamed[Atomics.load(counts, WHOSE)] ?? null
  try {
    if (digest !== null) PolicySlots.open(directory).poison(digest)
    const what = JSON.stringify({ code: 'bundle.poisoned', digest, limit_ms: limitMs })
    writeSync(2, `an evaluation of the policy did not end: ${what}\n`)
  } finally {
    // A disk that takes no note must not keep a process alive that decides nothing any more.
    process.kill(process.pid, 'SIGKILL')
  }
}

// Ticks are counted, and only those that came in time: after a pause of the whole machine, or while this
// thread gets no processor, nothing can be said about the other one.
setInterval(() => {
  const now = performance.now()
  const late = now - last > 2 * tickMs
  last = now
  const begun = Atomics.load(counts, BEGUN)
  const idle = begun === Atomics.load(counts, ENDED)
  if (idle || begun !== running) {
    running = idle ? -1 : begun
    ticks = 0
  } else if (!late) ticks++
  if (ticks > 5) end()
}, tickMs)
