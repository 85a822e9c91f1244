/** The end of a socket when everything has been said: its peer may read on, but not for ever. */
import type { Socket } from 'node:net'
import type { Clock } from './tunnel.ts'

/** How long a peer may take to read what was sent before both ends said goodbye. */
const FLUSH_MS = 30_000

/**
 * Ends `socket` behind what was written. What its peer has not taken within `ms` is dropped, and the
 * peer then sees a reset: half of what was said must not look like all of it.
 */
export function flush(socket: Socket, clock: Clock, ms = FLUSH_MS): void {
  if (socket.closed) return
  socket.end()
  const cancel = clock.after(ms, () => socket.resetAndDestroy())
  socket.once('close', cancel)
}
