/**
 * One stream over the two ends that a program was given: what it reads goes out, what comes is written,
 * each end of speech passes alone, and whoever does not read slows the other down.
 */
import { createWriteStream, fstatSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { readInto, SlabWriter, type CloseReason, type TunnelStream } from '#tunnel'

export interface Ends {
  readonly reader: Readable
  readonly writer: Writable
}

/** How long whoever reads may take for what was sent before both ends said goodbye. */
const FLUSH_MS = 30_000

/** Stdin, and a stdout that can be ended: then its reader sees the end of data while stdin goes on. */
export function standardEnds(): Ends {
  return { reader: process.stdin, writer: outOf(1) }
}

// process.stdout never closes, and on a pipe writes synchronously: a reader that does not read would
// hold up the whole program, its countdown and its cut with it.
export function outOf(fd: number): Writable {
  const kind = fstatSync(fd)
  return kind.isFIFO() || kind.isSocket()
    ? new Socket({ fd, readable: false, writable: true })
    : createWriteStream('', { fd })
}

/**
 * Joins them until both directions have ended and what came is written, or until either breaks; then
 * nothing holds the two ends. Gives why: `done`; `client.gone` where an end broke; else the stream's reason.
 */
export async function carry(stream: TunnelStream, { reader, writer }: Ends): Promise<CloseReason> {
  const { promise: closed, resolve: close } = Promise.withResolvers<CloseReason>()
  const written = new Promise<void>((resolve) => writer.once('close', resolve))
  const slabs = new SlabWriter(writer, (bytes) => stream.consumed(bytes))
  const broken = (): void => stream.reset('client.gone')
  writer.on('error', broken)
  reader.on('error', broken)
  if (writer.destroyed) broken()
  stream.onDrain = () => void reader.resume()
  stream.onEnd = () => slabs.end()
  stream.onClose = close
  stream.onData = (chunk) => slabs.write(chunk)
  reader.once('end', () => stream.end())
  readInto(reader, (chunk) => {
    if (!stream.write(chunk)) reader.pause()
  })
  reader.resume()
  const reason = await closed
  reader.destroy()
  if (reason.code === 'done') await atMost(written, FLUSH_MS)
  writer.destroy()
  return reason
}

async function atMost(promise: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)))
  await Promise.race([promise, late])
  clearTimeout(timer)
}
