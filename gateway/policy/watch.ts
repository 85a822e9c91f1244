/** The thread of the watchdog (watchdog.ts). It ends the process with the code a supervisor restarts on. */
import { readFileSync, writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { PolicySlots } from './slots.ts'
import { BEGUN, ENDED, WHOSE } from './watchdog.ts'
import type { Blamed, Orders } from './watchdog.ts'

const { shared, directory, limitMs } = workerData as Orders
const counts = new Int32Array(shared)
let blamed: Blamed = [null, null]
let running = -1
let ticks = 0
/** What the deciding thread had used of a processor when the evaluation was first seen, ms. */
let usedBefore: number | undefined
let last = performance.now()
const tickMs = limitMs / 5
/** As long as an evaluation may be on its way without a processor, times `limitMs`. */
const STARVED = 20
/** /proc counts in hundredths of a second on every platform Node runs on under Linux. */
const CLOCK_TICK_MS = 10

parentPort?.on('message', (named: Blamed) => {
  blamed = named
})

function end(): void {
  const digest = blamed[Atomics.load(counts, WHOSE)] ?? null
  try {
    if (digest !== null) PolicySlots.open(directory).poison(digest, Date.now())
    const what = JSON.stringify({ code: 'bundle.poisoned', digest, limit_ms: limitMs })
    writeSync(2, `an evaluation of the policy did not end: ${what}\n`)
  } finally {
    // A disk that takes no note must not keep a process alive that decides nothing any more.
    process.kill(process.pid, 'SIGKILL')
  }
}

/** Milliseconds of a processor that the main thread has used; undefined where the system does not say. */
function usedMs(): number | undefined {
  try {
    const stat = readFileSync(`/proc/self/task/${process.pid}/stat`, 'latin1')
    const [, user, system] = /\) (?:\S+ ){11}(\d+) (\d+) /.exec(stat) ?? []
    return user === undefined ? undefined : (Number(user) + Number(system)) * CLOCK_TICK_MS
  } catch {
    return undefined
  }
}

/** On a machine with too much to do, an evaluation may wait for a processor: that is no fault of its policy. */
function isStarved(): boolean {
  const used = usedMs()
  if (used === undefined || usedBefore === undefined || ticks > 5 * STARVED) return false
  return used - usedBefore < limitMs
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
    usedBefore = idle ? undefined : usedMs()
  } else if (!late) ticks++
  if (ticks > 5 && !isStarved()) end()
}, tickMs)
