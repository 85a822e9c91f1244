/**
 * Reading without allocating: all sockets of a process of the bench read into one buffer, so that
 * neither load generator nor target is what is measured.
 */
import type { Socket } from 'node:net'

const shared = Buffer.allocUnsafeSlow(256 * 1024)

/**
 * Calls `bytes` with what arrives; the memory is used again as soon as it returns. Where this Node's
 * sockets do not take a buffer (the slots behind the `onread` option), by ordinary data events.
 */
export function readInto(socket: Socket, bytes: (chunk: Uint8Array) => void): void {
  const slots = new Map(Object.getOwnPropertySymbols(socket).map((one) => [one.description, one]))
  const [buffer, callback] = [slots.get('kBuffer'), slots.get('kBufferCb')]
  const handle = Reflect.get(socket, '_handle') as { useUserBuffer?: (into: Uint8Array) => void }
  if (buffer === undefined || callback === undefined || handle?.useUserBuffer === undefined) {
    socket.on('data', bytes)
    return
  }
  const early = socket.read() as Uint8Array | null
  if (early !== null) bytes(early)
  Reflect.set(socket, buffer, shared)
  Reflect.set(socket, callback, (length: number) => {
    bytes(shared.subarray(0, length))
    return true
  })
  handle.useUserBuffer(shared)
  socket.resume()
}
