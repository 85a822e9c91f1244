/**
 * A wire over any node Duplex: TLS, TCP, Unix sockets, memory. Reads go into one reused buffer where
 * this Node's sockets allow it, by ordinary data events where not. docs/protocol.md section 10.
 */
import type { Duplex } from 'node:stream'
import type { Wire, WireEvents } from './wire.ts'

/** How much one read may bring; TLS hands over a record (16 KiB) at a time. */
const BLOCK = 64 * 1024
/** Less than this is left of a block: a new one. */
const LEAST_READ = 16 * 1024

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
function slotsOf(socket: Duplex): Slots | undefined {
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

/** The next place to read into: the same again, unless part of what was read is still in use. */
class ReadBlock {
  #block = Buffer.allocUnsafeSlow(BLOCK)
  #at = 0
  view: Buffer = this.#block

  /** Accounts for a read of `length` bytes into `view`. */
  after(length: number, inUse: boolean): void {
    if (!inUse) return
    this.#at += length
    if (BLOCK - this.#at < LEAST_READ) {
      this.#block = Buffer.allocUnsafeSlow(BLOCK)
      this.#at = 0
    }
    this.view = this.#block.subarray(this.#at)
  }
}

/** Any connected byte stream as a wire. `plain` forces the fallback for reads. */
export function socketWire(socket: Duplex, plain = false): Wire {
  const slots = plain ? undefined : slotsOf(socket)
  return {
    reads: slots === undefined ? 'plain' : 'reused',
    start(events) {
      if ('setNoDelay' in socket && typeof socket.setNoDelay === 'function') socket.setNoDelay(true)
      listen(socket, events)
      // What arrived before anybody drove the socket waits in its stream buffer.
      const early: unknown = socket.read()
      if (early instanceof Uint8Array) events.bytes(early)
      if (slots === undefined) socket.on('data', (chunk: Buffer) => events.bytes(chunk))
      else readInto(socket, slots, events)
      socket.resume()
    },
    write(bytes, done) {
      if (socket.destroyed || socket.writableEnded) queueMicrotask(done)
      else socket.write(bytes, done)
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

function readInto(socket: Duplex, slots: Slots, events: WireEvents): void {
  const block = new ReadBlock()
  const read = (length: number, buffer: Buffer): boolean => {
    block.after(length, events.bytes(buffer.subarray(0, length)))
    return true
  }
  Reflect.set(socket, slots.buffer, block.view)
  Reflect.set(socket, slots.callback, read)
  Reflect.set(socket, slots.generator, () => block.view)
  slots.handle.useUserBuffer(block.view)
}
