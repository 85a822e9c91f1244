/** Our end against one in another language, which was written from docs/protocol.md alone (stranger.py). */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { dialUnix, listenUnix } from '#tunnel'
import type { Offer, Tunnel, TunnelStream } from '#tunnel'
import { soon, until } from '../support/node.ts'

const PYTHON = '/usr/bin/python3'
const absent = !existsSync(PYTHON)
const program = fileURLToPath(new URL('stranger.py', import.meta.url))
const ours = { role: 'gateway', instance: 'ours', epoch: 7 } as const

type Said = Readonly<Record<string, unknown>>
interface Stranger {
  readonly said: Said[]
  readonly exited: Promise<unknown[]>
  /** The line in which it says something of that. */
  until(key: string): Promise<Said>
}

const left: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const leave of left.splice(0).toReversed()) await leave()
})

function stranger(how: 'dial' | 'listen', path: string): Stranger {
  const child: ChildProcess = spawn(PYTHON, [program, how, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  // Not `exit`: what it said last may be read after that.
  const exited = once(child, 'close')
  left.push(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const said: Said[] = []
  if (child.stdout !== null)
    createInterface({ input: child.stdout }).on('line', (line) =>
      said.push(JSON.parse(line) as Said),
    )
  return {
    said,
    exited,
    until: async (key) => {
      const told = () => `${key} of the stranger; it said ${JSON.stringify(said)}`
      return await until(told(), () => said.find((one) => Object.hasOwn(one, key)))
    },
  }
}

/** The stranger, and a tunnel of ours to it. */
async function joined(how: 'dial' | 'listen'): Promise<{ other: Stranger; tunnel: Tunnel }> {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-'))
  left.push(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'tunnel')
  if (how === 'listen') {
    const other = stranger(how, path)
    await other.until('listening')
    return { other, tunnel: await dialUnix(path, ours) }
  }
  const { promise, resolve, reject } = Promise.withResolvers<Tunnel>()
  const server = await listenUnix(path, ours, resolve, reject)
  left.push(async () => void server.close())
  const other = stranger(how, path)
  return { other, tunnel: await soon('the stranger dials', promise) }
}

/** Gives back what comes: octets, datagrams, signals, the end. */
function echo(stream: TunnelStream): void {
  stream.onData = (chunk) => {
    stream.write(chunk)
    stream.consumed(chunk.length)
  }
  stream.onSignal = (payload) => void stream.signal(payload)
  stream.onEnd = () => stream.end()
}

function answer(offer: Offer, ended: Map<string, string>): void {
  const name = Buffer.from(offer.metadata).toString()
  if (name === 'refused') return offer.refuse('door.closed', 'not today')
  const stream = offer.accept(Buffer.from(`yes to ${name}`))
  echo(stream)
  stream.onClose = ({ code }) => void ended.set(name, code)
}

/** Sends `octets` on a stream of ours and gives what comes back, with how it was answered. */
async function roundTrip(tunnel: Tunnel, octets: Buffer): Promise<{ back: Buffer; said: string }> {
  const stream = await tunnel.open('tcp', Buffer.from('ours'))
  const parts: Buffer[] = []
  const closed = Promise.withResolvers<void>()
  stream.onData = (chunk) => {
    parts.push(Buffer.from(chunk))
    stream.consumed(chunk.length)
  }
  stream.onClose = () => closed.resolve()
  stream.write(octets)
  stream.end()
  await soon('all of it comes back', closed.promise)
  return { back: Buffer.concat(parts), said: Buffer.from(stream.answer).toString() }
}

const ways = [
  { name: 'a stranger who dials', how: 'dial' },
  { name: 'a stranger who is dialled', how: 'listen' },
] as const

describe.skipIf(absent)('python3: an end in another language', () => {
  test.for(ways)('$name says and understands all that the page has', async ({ how }) => {
    const { other, tunnel } = await joined(how)
    const ended = new Map<string, string>()
    tunnel.onOpen = (offer) => answer(offer, ended)
    // More than the stranger's window, while it sends more than ours.
    const octets = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * 11) % 253))
    const [{ back, said }] = await Promise.all([
      roundTrip(tunnel, octets),
      other.until('datagrams'),
    ])
    expect(back.equals(octets)).toBe(true)
    expect(said).toBe('seen ours')
    const last = await tunnel.open('tcp', Buffer.from('last'))
    last.signal(Buffer.from('leave'))
    expect(await soon('the stranger leaves', tunnel.closed)).toMatchObject({
      code: 'stranger.done',
      fault: 'remote',
    })
    expect(await soon('its program ends', other.exited)).toEqual([0, null])
    expect(Object.fromEntries(ended)).toMatchObject({ bulk: 'done', order: 'stranger.bored' })
    expect(tunnel.peer).toMatchObject({ role: 'client', instance: 'stranger', epoch: 1 })
    expect(other.said.filter((one) => !('listening' in one))).toEqual([
      { hello: 3, versions: [1, 1], instance: 'ours', epoch: 7 },
      { bulk: 1_000_000, same: true, answer: 'yes to bulk' },
      { refused: ['door.closed', 'not today'] },
      { kind: ['tunnel.kind', 'kind 99'] },
      { signals: [['between', 6]], count: 11 },
      { datagrams: [0, 1, 1400], graced: 0 },
    ])
  })
})
