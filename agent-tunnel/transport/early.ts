/** Reading the first octets of a connection, before whoever gets it takes over; not one too many. */
import type { Socket } from 'node:net'

/** Resolves when there is something to read or nothing more will come. */
async function stirred(socket: Socket, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const aborted = () => reject(signal.reason as Error)
  const events = ['readable', 'end', 'close', 'error'] as const
  for (const event of events) socket.once(event, resolve)
  signal.addEventListener('abort', aborted, { once: true })
  try {
    await promise
  } finally {
    for (const event of events) socket.off(event, resolve)
    signal.removeEventListener('abort', aborted)
  }
}

function isOver(socket: Socket): boolean {
  return socket.readableEnded || socket.destroyed
}

/** Exactly `length` octets. Rejects when the connection ends before, or with the signal's reason. */
export async function take(socket: Socket, length: number, signal: AbortSignal): Promise<Buffer> {
  for (;;) {
    const got = socket.read(length) as Buffer | null
    if (got?.length === length) return got
    if (got !== null || isOver(socket)) throw new Error('the connection ended')
    await stirred(socket, signal)
  }
}

/**
 * What comes before `mark`, at most `limit` octets; what comes behind it stays unread. Undefined when
 * that much came without it. Rejects as `take`.
 */
export async function takeUntil(
  socket: Socket,
  mark: string,
  limit: number,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  let head = Buffer.alloc(0)
  for (;;) {
    const got = socket.read() as Buffer | null
    if (got !== null) {
      head = Buffer.concat([head, got])
      const at = head.indexOf(mark)
      if (at >= 0 && at <= limit) {
        const rest = head.subarray(at + mark.length)
        if (rest.length > 0) socket.unshift(rest)
        return head.subarray(0, at)
      }
      if (head.length > limit) return undefined
    } else if (isOver(socket)) throw new Error('the connection ended')
    else await stirred(socket, signal)
  }
}
