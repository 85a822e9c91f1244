/**
 * The kernel's memory for TCP is one for the whole machine. A connection that nobody reads from keeps
 * up to megabytes of it, most of them the other end's, and once it runs short the kernel drops packets
 * of everybody, the tunnel's own among them. So whoever takes nothing gives way, longest first; nobody
 * who moves ever does.
 */
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import type { Clock, TunnelStream } from '#tunnel'
import { parseTcpMemory } from './scope/procfs.ts'
import type { TcpMemory } from './scope/procfs.ts'

const LOOK_MS = 1000
/** A connection that has been blocked so many looks, and moved nothing, counts as stalled. */
const STALLED_LOOKS = 5
/** Of the stalled ones so large a part ends at a look: the next one sees what that has given back. */
const PART = 8
/** What both ends of one connection keep at most where nobody has changed Linux's defaults. */
const PER_CONNECTION = 4 * 1024 * 1024
const PAGE = 4096

/** A spliced connection, and how it is ended. */
export interface Connection {
  readonly stream: Pick<TunnelStream, 'bytesOut'>
  readonly target: Pick<Socket, 'isPaused' | 'bytesWritten' | 'writableLength'>
  readonly end: (message: string) => void
}

/** What was seen of a connection: both directions' progress, and since how many looks one stands still. */
interface Seen {
  out: number
  taken: number
  outLooks: number
  takenLooks: number
}

/** What the kernel says; undefined where there is no such kernel. */
function ofThisMachine(): TcpMemory | undefined {
  const protocols = read('/proc/net/protocols')
  return protocols === ''
    ? undefined
    : parseTcpMemory(protocols, read('/proc/sys/net/ipv4/tcp_mem'))
}

/** Empty where it cannot be read: a container with a network of its own lacks the second file. */
function read(file: string): string {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return ''
  }
}

/** Watches the connections of an agent. Looks once a second while there are any. */
export class Pressure {
  readonly #clock: Clock
  readonly #memory: () => TcpMemory | undefined
  readonly #connections = new Map<Connection, Seen>()
  #cancel: (() => void) | undefined

  constructor(clock: Clock, memory: () => TcpMemory | undefined = ofThisMachine) {
    this.#clock = clock
    this.#memory = memory
  }

  /** Watches one more; gives how to let go of it. */
  watch(connection: Connection): () => void {
    this.#connections.set(connection, { out: -1, taken: -1, outLooks: 0, takenLooks: 0 })
    this.#schedule()
    return () => {
      this.#connections.delete(connection)
      if (this.#connections.size > 0) return
      this.#cancel?.()
      this.#cancel = undefined
    }
  }

  #schedule(): void {
    this.#cancel ??= this.#clock.after(LOOK_MS, () => {
      this.#cancel = undefined
      this.#look()
      if (this.#connections.size > 0) this.#schedule()
    })
  }

  #look(): void {
    const stalled: { readonly connection: Connection; readonly looks: number }[] = []
    for (const [connection, seen] of this.#connections) {
      const looks = stillFor(connection, seen)
      if (looks >= STALLED_LOOKS) stalled.push({ connection, looks })
    }
    const memory = stalled.length > 0 ? this.#memory() : undefined
    if (memory?.short !== true) return
    // Where all of them together keep little, ending them gives nothing back: others fill the memory.
    if (stalled.length * PER_CONNECTION < (memory.pages * PAGE) / PART) return
    stalled.sort((one, other) => other.looks - one.looks)
    for (const { connection } of stalled.slice(0, Math.ceil(stalled.length / PART)))
      connection.end(
        'the device is short of memory for connections, and this one has taken nothing for a while',
      )
  }
}

/** For how many looks a direction has been blocked and has moved nothing; the longer of the two. */
function stillFor({ stream, target }: Connection, seen: Seen): number {
  const out = stream.bytesOut
  const taken = target.bytesWritten - target.writableLength
  seen.outLooks = target.isPaused() && out === seen.out ? seen.outLooks + 1 : 0
  seen.takenLooks = target.writableLength > 0 && taken === seen.taken ? seen.takenLooks + 1 : 0
  seen.out = out
  seen.taken = taken
  return Math.max(seen.outLooks, seen.takenLooks)
}
