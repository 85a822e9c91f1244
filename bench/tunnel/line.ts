/**
 * A line: one logical connection from the load generator to the target, whatever path carries it.
 * Its first eight octets name it to the target, which answers with one octet; then it is open.
 */

/** How the load generator reaches a path. */
export type Entry =
  | { readonly kind: 'tcp'; readonly port: number }
  /** One TLS connection per line, `ca` and name as in the certificate. */
  | { readonly kind: 'tls'; readonly port: number; readonly ca: string }
  /** One client tunnel, as `sallyport connect` has it, and a proven stream per line. */
  | {
      readonly kind: 'sallyport'
      readonly port: number
      readonly anchor: string
      /** Lines are given to the sessions in order, `streams` to each. */
      readonly sessions: readonly Session[]
    }

export interface Session {
  readonly id: string
  readonly secret: string
  readonly streams: number
}

/** `bulk` is counted and pumped, `echo` comes back. */
export type Purpose = 'bulk' | 'echo'

/** Which line this is: a path's number, and the line's number on it. */
export interface Name {
  readonly path: number
  readonly index: number
  readonly purpose: Purpose
}

export const NAME_BYTES = 8

export function encodeName({ path, index, purpose }: Name): Buffer {
  const name = Buffer.alloc(NAME_BYTES)
  name.writeUInt8(purpose === 'bulk' ? 1 : 2, 0)
  name.writeUInt16BE(path, 2)
  name.writeUInt32BE(index, 4)
  return name
}

/** Throws for octets that are no name: something between changed them. */
export function decodeName(bytes: Buffer): Name {
  const kind = bytes.readUInt8(0)
  if (kind !== 1 && kind !== 2) throw new Error(`a line of kind ${kind}`)
  return {
    purpose: kind === 1 ? 'bulk' : 'echo',
    path: bytes.readUInt16BE(2),
    index: bytes.readUInt32BE(4),
  }
}

/** What was counted, and what processes had used, at one moment. */
export interface Reading {
  /** Milliseconds of the reading process's own clock. */
  readonly at: number
  /** Octets received so far, per line. */
  readonly bytes: readonly number[]
  /** Seconds, in the order of the pids asked about. */
  readonly cpu: readonly number[]
}

/**
 * Written over and over by whoever sends in bulk. `size` is a multiple of 256, so that every octet says
 * where in its line it is, and what was lost, doubled or moved shows.
 */
export function bulk(size: number): Buffer {
  const chunk = Buffer.allocUnsafeSlow(size)
  for (let at = 0; at < size; at++) chunk[at] = at & 255
  return chunk
}

/** Whether `chunk` is what a line carries from position `from` on. */
export function isBulk(chunk: Uint8Array, from: number): boolean {
  return chunk.every((octet, at) => octet === ((from + at) & 255))
}
