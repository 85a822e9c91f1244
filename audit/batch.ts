/**
 * A batch on its way to the writer: the frames' own bytes, bodies in place and headers still open, so that what the
 * gateway's thread wrote once is hashed, checked and written to disk where it stands. docs/audit.md section "Writing".
 */
import { headerBytes, openFrame } from './segment.ts'

/** A body without its index, and at most how many bytes it has. */
export interface Head {
  readonly head: string
  readonly bytes: number
}

export interface Batch {
  readonly first: number
  readonly count: number
  /** Frames one after another; each says its length, the rest of its header is the writer's to fill. */
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Small batches share one size, so that the buffer coming back from the writer fits the next. */
const leastBytes = 64 * 1024

/** Lays out `heads` as the events from `first` on. `spare` is used instead of new memory when it is large enough. */
export function pack(heads: readonly Head[], first: number, spare?: ArrayBuffer | null): Batch {
  let most = 0
  for (const { bytes } of heads) most += headerBytes + bytes
  const fits = spare !== undefined && spare !== null && spare.byteLength >= most
  const memory = fits ? spare : new ArrayBuffer(Math.max(leastBytes, most))
  const into = Buffer.from(memory)
  let at = 0
  for (const [i, { head, bytes }] of heads.entries()) {
    const body = at + headerBytes
    // As many characters as bytes (18 are kept for the index): plain ASCII, which is copied and not converted.
    const encoding = head.length + 18 === bytes ? 'latin1' : 'utf8'
    let end = body + into.write(head, body, encoding)
    end += into.write(`${first + i}}}`, end, 'latin1')
    openFrame(into, at, end - body)
    at = end
  }
  return { first, count: heads.length, bytes: new Uint8Array(memory, 0, at) }
}

/** Lays out whole bodies as the events from `first` on: what a mirror took from the log it follows. */
export function packBodies(bodies: readonly Uint8Array[], first: number): Batch {
  const into = Buffer.alloc(bodies.reduce((sum, body) => sum + headerBytes + body.length, 0))
  let at = 0
  for (const body of bodies) {
    openFrame(into, at, body.length)
    into.set(body, at + headerBytes)
    at += headerBytes + body.length
  }
  return { first, count: bodies.length, bytes: into }
}
