/**
 * A tunnel stream and a TCP socket as one connection. Bytes, ends and back-pressure pass both ways:
 * credit goes back when the target's socket has taken the bytes, the target is paused while the
 * tunnel's is full, and a half-close stays a half-close.
 */
import type { Socket } from 'node:net'
import { flush, readInto, SlabWriter } from '#tunnel'
import type { Clock, CloseReason, TunnelStream } from '#tunnel'
import type { ModbusEnds, ModbusLine } from './modbus.ts'

/** Judged requests that a target does not read; a client has sixteen of 260 octets unanswered at most. */
const MAX_UNREAD_BYTES = 64 * 1024

/**
 * Joins `stream` and `target`, a connected, paused socket with `allowHalfOpen`. `ended` is called once,
 * when the stream has closed; the socket is then ended (all said) or destroyed (cut). With `judge`, the
 * bytes go through what it makes of the two ends instead of from one to the other.
 */
export function splice(
  stream: TunnelStream,
  target: Socket,
  clock: Clock,
  ended: (reason: CloseReason) => void,
  judge?: (ends: ModbusEnds) => ModbusLine,
): void {
  let open = true
  const writer = new SlabWriter(target, (bytes) => {
    // What is judged was taken whole when it came: other bytes may go on than have come.
    if (open && line === undefined) stream.consumed(bytes)
  })
  const back = (chunk: Uint8Array) => {
    if (open && !stream.write(chunk)) target.pause()
  }
  const line = judge?.({
    toTarget: (frame) => {
      if (target.writableLength > MAX_UNREAD_BYTES)
        stream.reset('target.failed', 'the process on the device does not read')
      else writer.write(frame)
    },
    toClient: back,
    violated: (message) => stream.reset('modbus.violation', message),
  })
  stream.onClose = (reason) => {
    open = false
    line?.stop()
    if (reason.code === 'done') flush(target, clock)
    else target.destroy()
    ended(reason)
  }
  stream.onDrain = () => void target.resume()
  stream.onEnd = () => writer.end()
  stream.onData = (chunk) => {
    if (line === undefined) return writer.write(chunk)
    line.fromClient(chunk)
    if (open) stream.consumed(chunk.length)
  }
  readInto(target, (chunk) => (line === undefined ? back(chunk) : line.fromTarget(chunk)))
  target.on('end', () => open && stream.end())
  target.on('error', (error) => stream.reset('target.failed', error.message))
  target.on('close', () => {
    // After an end both ways this changes nothing; otherwise the target took its leave alone.
    if (open && !(target.readableEnded && target.writableFinished)) {
      stream.reset('target.closed', 'the process on the device closed the connection')
    }
  })
  target.resume()
}
