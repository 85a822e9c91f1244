/** The system's monotonic clock and timers, which never keep a process alive. */
import type { Monotonic } from '#mux'
import type { Clock } from './tunnel.ts'

export const systemClock: Clock = {
  now: () => performance.now() as Monotonic,
  after(ms, wake) {
    const timer = setTimeout(wake, Math.max(1, Math.ceil(ms)))
    timer.unref()
    return () => clearTimeout(timer)
  },
}
