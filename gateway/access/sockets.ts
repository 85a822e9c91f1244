/**
 * A session in a browser: a terminal, or the bytes of a process for a viewer that runs in a page (VNC). A page has no
 * tunnel and proves nothing, so it shows a ticket that the holder of the session asked for, once; what follows is a
 * connection of the session like any other. docs/sockets.md.
 */
import { ServerResponse, type IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { Value } from 'typebox/value'
import { shakeWebSocket } from '#tunnel'
import { streamKindOf } from '../devices/device.ts'
import { Refusal } from '../problem.ts'
import { leave } from '../sessions/extend.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { SessionRoom } from '../sessions/room.ts'
import { openStream, type OpenedStream } from '../sessions/stream.ts'
import { Terminal } from '../sessions/terminal.ts'
import { carry, toldOf } from './carry.ts'
import { MAX_MESSAGE, SocketSide, SUBPROTOCOLS, type Speech } from './socket.ts'
import { inTheirTurn, type Openings } from './openings.ts'
import { sourceOf } from './source.ts'
import { TICKET_MS, Tickets } from './tickets.ts'
import { takeSocket } from './upgrade.ts'

const PATH = /^\/api\/v1\/sessions\/([A-Za-z0-9_-]{1,40})\/socket(?:\?(.{0,200}))?$/
const TICKET = 'ticket.'

/** Whether an upgrade of `url` is one for here. */
export const isSocketPath = (url: string): boolean => PATH.test(url)

export interface SocketDoor {
  readonly room: SessionRoom
  /** Of the gateway: pages of any other are refused. */
  readonly origin: string
  /** In whose turn connections are opened, whatever they come over. */
  readonly openings: Pick<Openings, 'turn'>
  /** Answers a request that is not upgraded. */
  readonly refuse: (request: IncomingMessage, response: ServerResponse, refusal: Refusal) => void
}

/** What a page needs to open one socket, once, within a minute. */
export interface SocketOffer {
  readonly url: string
  /** For the constructor of WebSocket; the ticket among them, so that no log of addresses holds it. */
  readonly protocols: readonly string[]
  /** Epoch seconds. */
  readonly expires_at: number
}

interface Arrival {
  readonly request: IncomingMessage
  readonly socket: TLSSocket
  readonly head: Buffer
}

interface Admitted {
  readonly session: LiveSession
  readonly speech: Speech
  readonly terminal: Terminal | undefined
}

export class SessionSockets {
  readonly #door: SocketDoor
  readonly #tickets = new Tickets()

  constructor(door: SocketDoor) {
    this.#door = door
  }

  /** For the holder of `session`, who has been asked for a sign-in. Refusal: `socket.kind`, `session.ended`. */
  offer(session: LiveSession): SocketOffer {
    const { origin, room } = this.#door
    if (session.state !== 'open') throw new Refusal('session.ended', 'the session has ended')
    const speech = speechOf(session)
    const now = room.now()
    const ticket = this.#tickets.issue(session.id, now)
    return {
      url: `${origin.replace(/^http/, 'ws')}/api/v1/sessions/${session.id}/socket`,
      protocols: [SUBPROTOCOLS[speech], `${TICKET}${ticket}`],
      expires_at: Math.floor((now + TICKET_MS) / 1000),
    }
  }

  /** Nothing of an ended session stays. */
  forget(session: string): void {
    this.#tickets.forget(session)
  }

  /** Never throws: who is not let in is answered with a problem, and who is, with what became of it. */
  handle(request: IncomingMessage, socket: TLSSocket, head: Buffer): void {
    let admitted: Admitted
    try {
      admitted = this.#admit(request)
    } catch (error) {
      const response = new ServerResponse(request)
      if (error instanceof Refusal && takeSocket(response, socket))
        this.#door.refuse(request, response, error)
      else socket.destroy()
      return
    }
    this.#serve(admitted, { request, socket, head }).catch((error: unknown) => {
      socket.destroy()
      this.#door.room.report(error, 'a socket of a session could not be served')
    })
  }

  #admit(request: IncomingMessage): Admitted {
    const { origin, room } = this.#door
    const [, id, query] = PATH.exec(request.url ?? '') ?? []
    // Absent: no page at all, which the ticket decides alone. A browser leaves out the usual port.
    const { origin: own } = new URL(origin)
    if ((request.headers.origin ?? own) !== own)
      throw new Refusal('app.foreign', 'another site asked for this in your name')
    const offered = protocolsOf(request)
    const ticket = offered.find((one) => one.startsWith(TICKET))?.slice(TICKET.length) ?? ''
    const session = room.live.get(this.#tickets.redeem(ticket, room.now()) ?? '')
    if (session === undefined || session.id !== id)
      throw new Refusal(
        'socket.ticket',
        'this ticket was used, is too old, or of another session',
        {
          nextStep: 'ask for a new one: POST /api/v1/sessions/{id}/socket',
        },
      )
    const speech = speechOf(session)
    if (!offered.includes(SUBPROTOCOLS[speech]))
      throw new Refusal('socket.ticket', `this session speaks ${SUBPROTOCOLS[speech]}`)
    return { session, speech, terminal: speech === 'terminal' ? terminalIn(query) : undefined }
  }

  async #serve({ session, speech, terminal }: Admitted, arrival: Arrival): Promise<void> {
    const { room, openings } = this.#door
    const ws = await shakeWebSocket(arrival, () => SUBPROTOCOLS[speech], MAX_MESSAGE)
    if (ws instanceof Error) return
    const side = new SocketSide(ws, speech)
    const source = sourceOf(arrival.request)
    let opened: OpenedStream
    try {
      await inTheirTurn(openings, session, {
        get cancelled() {
          return session.state !== 'open' || ws.readyState !== ws.OPEN
        },
      })
      opened = await openStream(room, session, source, terminal)
    } catch (error) {
      if (!(error instanceof Refusal)) {
        side.reset('node.fault')
        throw error
      }
      side.signal(encode({ t: 'refused', ...toldOf(error) }))
      side.reset(error.shownCode)
      return
    }
    if (ws.readyState !== ws.OPEN) {
      opened.stream.reset('client.gone', '')
      leave(room, session, opened.entry)
      return
    }
    const accept = (told: Uint8Array) => {
      side.signal(encode({ t: 'open', ...(decode(told) as object) }))
      side.start()
      return side
    }
    await carry(room, session, opened, { source, terminal, accept, onEnd: () => undefined })
  }
}

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
const decode = (bytes: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(bytes))

/** How a page may have a session of its kind. Refusal: `socket.kind`. */
function speechOf({ kind }: LiveSession): Speech {
  const stream = streamKindOf(kind)
  if (stream === 'spawn') return 'terminal'
  // Requests of a web application are decided one by one; as bytes nobody would see them.
  if (stream === 'tcp' && kind !== 'http') return 'stream'
  throw new Refusal('socket.kind', `a process of kind ${kind} is not carried to a page`, {
    nextStep: kind === 'http' ? 'open it as a page: sallyport open' : 'use sallyport connect',
  })
}

function protocolsOf({ headers }: IncomingMessage): string[] {
  return (headers['sec-websocket-protocol'] ?? '').split(',').map((one) => one.trim())
}

/** The window of the page, in its address; without one, programs are told the usual. Refusal: `socket.window`. */
function terminalIn(query = ''): Terminal {
  const said = new URLSearchParams(query)
  const number = (name: string, otherwise: number) => Number(said.get(name) ?? otherwise)
  const terminal = {
    rows: number('rows', 24),
    cols: number('cols', 80),
    term: said.get('term') ?? 'xterm-256color',
  }
  if (!Value.Check(Terminal, terminal))
    throw new Refusal('socket.window', 'rows and cols are 1 to 1,000, term is a terminal’s name')
  return terminal
}
