/** Native clients: each local connection of `sallyport connect` is one stream here, proven and decided by itself. */
import { createHmac } from 'node:crypto'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Offer, Tunnel } from '#tunnel'
import { streamKindOf } from '../devices/device.ts'
import type { Source } from '../facts.ts'
import { leave } from '../sessions/extend.ts'
import type { Carrier, LiveSession } from '../sessions/live.ts'
import { hasRoom, openStream } from '../sessions/stream.ts'
import type { SessionRoom } from '../sessions/room.ts'
import { Refusal } from '../problem.ts'
import { Terminal } from '../sessions/terminal.ts'
import { carry, remainingMs, toldOf } from './carry.ts'
import { TOO_MANY, type Openings } from './openings.ts'
import { endingSignal } from './splice.ts'

const OpenMetadata = Type.Object({
  v: Type.Literal(1),
  session: Type.String({ maxLength: 40 }),
  proof: Type.String({ maxLength: 64 }),
  /** Of a spawned program: the person's terminal, where there is one. */
  terminal: Type.Optional(Terminal),
})

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

export interface ClientTunnel {
  readonly tunnel: Tunnel
  /** tls-exporter octets of this very connection: a proof made for another one is worth nothing here. */
  readonly exporter: Uint8Array
  readonly source: Source
  /** A session was proven on it, so whoever is at the other end belongs here. False: it comes too often. */
  readonly proven: (session: string) => boolean
  /** In whose turn connections are opened, of all clients' tunnels. */
  readonly openings: Pick<Openings, 'turn'>
}

/** A tunnel that proves no session is nobody's: it may stay this long, and guess this often. */
const UNPROVEN_MS = 15_000
const MAX_BAD_PROOFS = 32

/** A session, and what else was asked for, as it was proven. */
interface Proven {
  readonly session: LiveSession
  readonly terminal: Terminal | undefined
}

/** Whether a client's tunnel is used by a session now; closes it when it has not been for a while. */
class Standing {
  readonly #tunnel: Tunnel
  /** What was proven last, and the octets that proved it here. */
  last: (Proven & { readonly metadata: Uint8Array }) | undefined
  readonly #proven = new Set<string>()
  #held = 0
  #bad = 0
  #timer: NodeJS.Timeout | undefined

  constructor(tunnel: Tunnel) {
    this.#tunnel = tunnel
    this.#wait()
    void tunnel.closed.then(() => clearTimeout(this.#timer))
  }

  /** Whether this session was proven here before. */
  is(session: string): boolean {
    return this.#proven.has(session)
  }
  proves(session: string): void {
    this.#proven.add(session)
  }

  hold(): void {
    this.#held++
    clearTimeout(this.#timer)
  }

  release(): void {
    if (--this.#held === 0) this.#wait()
  }

  guessed(): void {
    if (++this.#bad >= MAX_BAD_PROOFS) this.#close()
  }

  #wait(): void {
    this.#timer = setTimeout(() => this.#close(), UNPROVEN_MS)
    this.#timer.unref()
  }

  #close(): void {
    this.#tunnel.close('client.unproven', 'no open session is proven on this connection')
  }
}

/** What the secret of a session proves on one TLS connection. */
function proofOf(secret: Uint8Array, exporter: Uint8Array): Buffer {
  return createHmac('sha256', secret).update(exporter).digest()
}

/** Serves the streams of one native client until its tunnel ends. */
export function serveClient(room: SessionRoom, client: ClientTunnel): void {
  const standing = new Standing(client.tunnel)
  const waiting: Offer[] = []
  // One in a turn of the loop: a hundred that come together must not hold up everybody else. And not in
  // the same breath: an OPEN whose RESET came with it is known to be taken back only then.
  const next = (): void => {
    const offer = waiting.shift()
    if (waiting.length > 0) setImmediate(next)
    if (offer === undefined || offer.cancelled) return
    answer(room, client, standing, offer).catch((error: unknown) => {
      offer.refuse('node.fault', '')
      room.report(error, 'a client stream could not be served')
    })
  }
  client.tunnel.onOpen = (offer) => {
    waiting.push(offer)
    if (waiting.length === 1) setImmediate(next)
  }
}

async function answer(
  room: SessionRoom,
  client: ClientTunnel,
  standing: Standing,
  offer: Offer,
): Promise<void> {
  try {
    const { session, terminal } = provenAgain(room, standing, offer) ?? prove(room, client, offer)
    if (offer.kind !== 'control' && offer.kind !== streamKindOf(session.kind))
      throw new Refusal(
        'session.proof',
        `streams of kind ${offer.kind} do not carry this session`,
        { nextStep: 'open a session first: `sallyport connect` does it for you' },
      )
    if (!standing.is(session.id)) {
      if (!client.proven(session.id)) {
        client.tunnel.close(
          'session.pace',
          'this session connects too often; try again in a minute',
        )
        return
      }
      standing.proves(session.id)
    }
    standing.last = { session, terminal, metadata: offer.metadata }
    if (offer.kind === 'control') {
      watch(room, session, standing, offer)
      return
    }
    // One that there is no room for is refused at once, whoever waits.
    const turn = hasRoom(session) ? await client.openings.turn(session.subject.id, offer) : 'go'
    if (turn === 'full') offer.refuse('tunnel.pace', TOO_MANY)
    if (turn !== 'go') return
    const { stream, entry, says } = await openStream(room, session, client.source, terminal)
    if (offer.cancelled) {
      stream.reset('client.gone', '')
      leave(room, session, entry)
      return
    }
    await carry(
      room,
      session,
      { stream, entry, says },
      {
        source: client.source,
        terminal,
        accept: (told) => {
          const accepted = offer.accept(told)
          standing.hold()
          return accepted
        },
        onEnd: () => standing.release(),
      },
    )
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    if (error.code === 'session.proof') standing.guessed()
    offer.refuse(error.shownCode, JSON.stringify(toldOf(error)))
  }
}

/** How many clients of one session may wait for its end. */
const MAX_WATCHERS = 4

/** A stream that carries nothing but the news of the end, for a client with no connection open. */
function watch(room: SessionRoom, session: LiveSession, standing: Standing, offer: Offer): void {
  if (session.state !== 'open') throw new Refusal('session.ended', 'the session has ended')
  if (session.watchers.size >= MAX_WATCHERS)
    throw new Refusal('session.limit', 'enough clients watch this session already')
  const stream = offer.accept(encode({ v: 1, remaining_ms: remainingMs(room, session) }))
  const watcher: Carrier = {
    tell: (told) => stream.signal(told),
    cut(why) {
      stream.signal(endingSignal(why))
      stream.reset(why.code, why.message)
      return Promise.resolve()
    },
  }
  session.watchers.add(watcher)
  stream.onData = (chunk) => stream.consumed(chunk.length)
  standing.hold()
  stream.onClose = () => {
    session.watchers.delete(watcher)
    standing.release()
  }
}

/** The very octets that proved a session on this tunnel before prove it again, while it lives: connections of one tool are alike. */
function provenAgain(
  { live }: SessionRoom,
  { last }: Standing,
  { metadata }: Offer,
): Proven | undefined {
  if (last === undefined || live.get(last.session.id) !== last.session) return undefined
  return Buffer.compare(last.metadata, metadata) === 0 ? last : undefined
}

function prove(room: SessionRoom, client: ClientTunnel, { metadata }: Offer): Proven {
  const stranger = new Refusal('session.proof', 'no open session is proven by this connection', {
    nextStep: 'open a session first: `sallyport connect` does it for you',
  })
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(metadata))
  } catch {
    throw stranger
  }
  if (!Value.Check(OpenMetadata, value)) throw stranger
  const session = room.live.get(value.session)
  // The same work and the same answer for a session that is not there.
  const secret = session?.secret ?? new Uint8Array(32)
  const held =
    session?.provenBy(Buffer.from(value.proof, 'base64url'), proofOf(secret, client.exporter)) ??
    false
  if (session === undefined || !held) throw stranger
  return { session, terminal: value.terminal }
}
