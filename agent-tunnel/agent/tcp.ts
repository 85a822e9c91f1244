/** A TCP target: connected, its accepted socket's owner observed, then spliced to the stream. */
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { Refused } from './ask.ts'
import { messageOf } from './errors.ts'
import type { Kind } from './line.ts'
import { ModbusLine } from './modbus.ts'
import type { ModbusEnds } from './modbus.ts'
import { assertBeside, endsOf, observe } from './observe.ts'
import { printEndpoint } from './scope/address.ts'
import type { Endpoint } from './scope/address.ts'
import { splice } from './splice.ts'
import { isBeside } from './target.ts'

const CONNECT_TIMEOUT_MS = 5000

export const tcp: Kind = {
  stream: 'tcp',
  async open(target, { process, session: id, modbus }, room, cancelled) {
    assertBeside(process, target)
    const socket = await dial(target.endpoint, cancelled)
    const close = () => void socket.destroy()
    try {
      const dialled = endsOf(
        { address: socket.localAddress ?? '', port: socket.localPort ?? 0 },
        { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 },
      )
      if (dialled === undefined)
        throw new Refused('target.unreachable', 'the target closed the connection')
      const sighting = isBeside(target) ? undefined : await observe(room, dialled, cancelled)
      return {
        observed: sighting?.observed ?? null,
        sighting,
        flow({ stream, end, over }) {
          const { clock, log, pressure } = room
          const judge =
            modbus && ((ends: ModbusEnds) => new ModbusLine(modbus, ends, clock, log, id))
          const calm = pressure.watch({
            stream,
            target: socket,
            end: (message) => end('agent.memory', message),
          })
          splice(
            stream,
            socket,
            clock,
            (reason) => {
              calm()
              over(reason)
            },
            judge,
          )
        },
        destroy: close,
      }
    } catch (error) {
      close()
      throw error
    }
  },
}

async function dial(end: Endpoint, cancelled: AbortSignal): Promise<Socket> {
  const socket = connect({
    host: end.address,
    port: end.port,
    allowHalfOpen: true,
    noDelay: true,
  })
  socket.pause()
  socket.on('error', () => {})
  try {
    const signal = AbortSignal.any([cancelled, AbortSignal.timeout(CONNECT_TIMEOUT_MS)])
    await once(socket, 'connect', { signal })
    return socket
  } catch (error) {
    socket.destroy()
    const why = messageOf(error)
    throw new Refused(
      'target.unreachable',
      `${printEndpoint(end)} does not take connections: ${why}`,
    )
  }
}
