/** How a connection to a syslog receiver begins, how it is closed, and what the receiver's own closing says. */
import { connect, type TLSSocket } from 'node:tls'
import type { SyslogOptions } from './syslog.ts'

/** A connection that is up; `dialled` is given it before it is. Rejects where it does not come up, or not in time. */
export function dial(
  { host, port, ca, cert, key, servername, connectMs = 10_000 }: SyslogOptions,
  dialled: (socket: TLSSocket) => void,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      ca,
      minVersion: 'TLSv1.2',
      servername: servername ?? host,
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    })
    dialled(socket)
    const timer = setTimeout(() => socket.destroy(new Error('no connection in time')), connectMs)
    const refused = (error?: Error): void =>
      settle(() => reject(error ?? new Error('closed early')))
    const up = (): void => settle(() => resolve(socket))
    const settle = (act: () => void): void => {
      clearTimeout(timer)
      socket.off('secureConnect', up)
      socket.off('close', refused)
      act()
      // Only now: an error without a listener would end the process.
      socket.off('error', refused)
    }
    socket.on('secureConnect', up)
    socket.on('error', refused)
    socket.on('close', refused)
  })
}

/**
 * Closes our half. Resolves true once the other side has closed in answer, false where the connection broke: a system
 * whose program closes with octets unread resets (RFC 2525 section 2.17), so a clean end says that all of them were read.
 */
export async function closedInAnswer(socket: TLSSocket): Promise<boolean> {
  let [ended, broken] = [false, socket.destroyed]
  if (broken) return false
  await new Promise<void>((resolve) => {
    socket.once('end', () => {
      ended = true
    })
    socket.once('error', () => {
      broken = true
    })
    socket.once('close', resolve)
    socket.end()
  })
  return ended && !broken
}

/** Lets what is written go out; a receiver that does not read is left after two seconds. */
export async function endSocket(socket: TLSSocket): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, 2_000)
  })
  // The receiver's own closing says that it has read to the end; there is no better sign.
  await Promise.race([closedInAnswer(socket), late])
  clearTimeout(timer)
  socket.destroy()
}
