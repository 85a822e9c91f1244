/**
 * A tunnel stream and a TCP socket as one connection. Bytes, ends and back-pressure pass both ways:
 * credit goes back when the target's socket has taken the bytes, the target is paused while the
 * tunnel's is full, and a half-close stays a half-close.
 */
import type { Socket } from 'node:net'
import { flush, readInto, SlabWriter } from '#tunnel'
import type { Clock, CloseReason, TunnelStream } from '#tunnel'

/**
 * Joins `stream` and `target`, a connected, paused socket with `allowHalfOpen`. `ended` is called once,
 * when the stream has closed; the socket is then ended (all said) or destroyed (cut).
 */
export function splice(
  stream: TunnelStream,
  target: Socket,
  clock: Clock,
  ended: (reason: CloseReason) => void,
): void {
  let open = true
  const writer = new SlabWriter(target, (bytes) => {
    if (open) stream.consumed(bytes)
  })
  stream.onClose = (reason) => {
    open = false
    if (reason.code === 'done') flush(target, clock)
    else target.destroy()
    ended(reason)
  }
  stream.onDrain = () => void target.resume()
  stream.onEnd = () => writer.end()
  stream.onData = (chunk) => writer.write(chunk)
  readInto(target, (chunk) => {
    if (open && !stream.write(chunk)) target.pause()
  })
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
