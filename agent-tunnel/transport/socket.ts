/**
 * A wire over any node Duplex: TLS, TCP, Unix sockets, memory. Reads go into one buffer that all
 * sockets of the process share where this Node allows it, by ordinary data events where not.
 * docs/protocol.md section 10.
 */
import type { Duplex, Readable } from 'node:stream'
import type { Wire, WireEvents } from './wire.ts'

/**
 * Where every socket is read into. One is enough, and stays in the processor's cache: a read is
 * handed on before the next one begins, and what is handed on is lent for the call only.
 */
const shared = Buffer.allocUnsafeSlow(64 * 1024)

interface Handle {
  useUserBuffer(buffer: Uint8Array): void
}
/** The three slots behind the public `onread` option of net.connect. */
interface Slots {
  readonly buffer: symbol
  readonly callback: symbol
  readonly generator: symbol
  readonly handle: Handle
}

// The `onread` option exists for sockets we connect ourselves, not for accepted ones, so the slots
// it fills are looked for by name. A Node without them gets the plain path, nothing else changes.
function slotsOf(socket: Readable): Slots | undefined {
  const named = new Map(
    Object.getOwnPropertySymbols(socket).map((symbol) => [symbol.description, symbol]),
  )
  const buffer = named.get('kBuffer')
  const callback = named.get('kBufferCb')
  const generator = named.get('kBufferGen')
  const handle: unknown = Reflect.get(socket, '_handle')
  if (buffer === undefined || callback === undefined || generator === undefined) return undefined
  if (Reflect.get(socket, buffer) !== null || !takesBuffer(handle)) return undefined
  return { buffer, callback, generator, handle }
}

function takesBuffer(handle: unknown): handle is Handle {
  return (
    typeof handle === 'object' &&
    handle !== null &&
    typeof Reflect.get(handle, 'useUserBuffer') === 'function'
  )
}

/**
 * From now on hands everything `socket` reads to `take`, lent for the call; `pause` and `resume` of
 * the socket hold it back and let it on as always. Gives how: `reused` reads go into shared memory,
 * `plain` ones (forced by `plain`) are data events. What had been read before comes first.
 */
export function readInto(
  socket: Readable,
  take: (chunk: Uint8Array) => void,
  plain = false,
): 'reused' | 'plain' {
  const slots = plain ? undefined : slotsOf(socket)
  // What arrived before anybody took it waits in the stream's own buffer, piece by piece.
  for (let early: unknown = socket.read(); early !== null; early = socket.read()) {
    if (early instanceof Uint8Array) take(early)
  }
  if (slots === undefined) {
    socket.on('data', take)
    return 'plain'
  }
  Reflect.set(socket, slots.buffer, shared)
  Reflect.set(socket, slots.callback, (length: number, buffer: Buffer): boolean => {
    take(buffer.subarray(0, length))
    return true
  })
  Reflect.set(socket, slots.generator, null)
  slots.handle.useUserBuffer(shared)
  return 'reused'
}

/** Any connected byte stream as a wire. `plain` forces the fallback for reads. */
export function socketWire(socket: Duplex, plain = false): Wire {
  return {
    reads: plain || slotsOf(socket) === undefined ? 'plain' : 'reused',
    start(events) {
      if ('setNoDelay' in socket && typeof socket.setNoDelay === 'function') socket.setNoDelay(true)
      listen(socket, events)
      readInto(socket, (chunk) => events.bytes(chunk), plain)
      socket.resume()
    },
    write(bytes, done) {
      if (socket.destroyed || socket.writableEnded) queueMicrotask(done)
      else socket.write(bytes, done)
    },
    pause() {
      socket.pause()
    },
    resume() {
      socket.resume()
    },
    end() {
      if (!socket.destroyed) socket.end()
    },
    destroy() {
      socket.destroy()
    },
  }
}

function listen(socket: Duplex, events: WireEvents): void {
  let failure: Error | undefined
  socket.on('error', (error: Error) => (failure ??= error))
  socket.on('end', () => events.ended())
  socket.on('close', () => events.gone(failure))
  if (socket.destroyed) setImmediate(() => events.gone(failure))
}
