/**
 * Web apps behind devices: each request of a signed-in browser is decided, re-framed and carried
 * over the session's own tunnel streams. One pool per session; nothing of one session serves another.
 */
import { ServerResponse, type IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { Pool, type Dispatcher } from 'undici'
import type { AuditLog } from '#audit'
import type { Source } from '../facts.ts'
import { Refusal } from '../problem.ts'
import { leave } from '../sessions/extend.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { SessionRoom } from '../sessions/room.ts'
import { openStream } from '../sessions/stream.ts'
import {
  APP_COOKIE,
  ENTER_PATH,
  parseAppLabel,
  takeCookie,
  type AppName,
  type AppSignIns,
} from './apps.ts'
import { count } from './carry.ts'
import type { WebQuestion } from './ground.ts'
import { requestHeaders } from './headers.ts'
import { Metered } from './metered.ts'
import { inTheirTurn, type Openings } from './openings.ts'
import { Permits } from './permits.ts'
import { relay } from './relay.ts'
import { sourceOf } from './source.ts'
import { Witness } from './weblog.ts'
import { carryUpgrade, takeSocket, upgradeToken, type Upgrade } from './upgrade.ts'

export interface Apps {
  readonly room: SessionRoom
  readonly log: Pick<AuditLog, 'append'>
  readonly signIns: AppSignIns
  /** In whose turn connections are opened, whatever they come over. */
  readonly openings: Pick<Openings, 'turn'>
  /** Answers a request with a refusal, as a page for people and as a problem for programs. */
  readonly refuse: (request: IncomingMessage, response: ServerResponse, refusal: Refusal) => void
}

/** Quiet enough for slow machines, short enough that a hung one frees its stream. */
const HEADERS_TIMEOUT_MS = 60_000
const BODY_TIMEOUT_MS = 300_000

export class AppForwarder implements Disposable {
  readonly #apps: Apps
  readonly #pools = new Map<string, Pool>()
  readonly #permits: Permits

  constructor(apps: Apps) {
    this.#apps = apps
    this.#permits = new Permits(apps.room, apps.log)
  }

  /** `label` is the host in front of the apps domain. Never throws. */
  handle(request: IncomingMessage, response: ServerResponse, label: string): void {
    this.#serve(request, response, label).catch((error: unknown) =>
      this.#fail(request, response, error),
    )
  }

  /**
   * A request that wants to speak another protocol behind it, WebSocket above all: decided like any
   * other, and a connection of the session once the application says 101. `head` is what came with it.
   * Never throws.
   */
  upgrade(request: IncomingMessage, socket: TLSSocket, head: Buffer, label: string): void {
    const response = new ServerResponse(request)
    if (!takeSocket(response, socket)) return
    this.#carry({ request, response, socket, head }, label).catch((error: unknown) =>
      this.#fail(request, response, error),
    )
  }

  #fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const refusal =
      error instanceof Refusal
        ? error
        : new Refusal('app.upstream', 'the application on the device did not answer', {
            cause: error,
          })
    if (!(error instanceof Refusal) && !upstreams(error))
      this.#apps.room.report(error, 'a web request could not be carried')
    if (response.headersSent) response.destroy()
    else this.#apps.refuse(request, response, refusal)
  }

  /** Ends every connection of a session. */
  close(session: string): void {
    this.#permits.end(session)
    const pool = this.#pools.get(session)
    this.#pools.delete(session)
    void pool?.destroy(new Refusal('session.ended', 'the session has ended'))
  }

  async #serve(request: IncomingMessage, response: ServerResponse, label: string): Promise<void> {
    const name = nameOf(label)
    const url = request.url ?? '/'
    if (url === ENTER_PATH || url.startsWith(`${ENTER_PATH}?`)) {
      this.#enter(request, response, name)
      return
    }
    const hasBody = bodyOf(request)
    const { session, witness } = await this.#admit(request, name, { idle: !hasBody })
    await witnessed(witness, this.#forward(request, response, session, { witness, hasBody }))
  }

  async #carry(asked: Omit<Upgrade, 'token' | 'target' | 'patienceMs' | 'watch'>, label: string) {
    const { request } = asked
    const asks = { idle: false, check: upgradeToken }
    const { session, witness } = await this.#admit(request, nameOf(label), asks)
    const token = upgradeToken(request)
    const carried = async (): Promise<void> => {
      const { socket } = asked
      const gone = (): boolean => socket.destroyed
      const target = await this.#dial(session, sourceOf(request), gone)
      target.once('close', () => witness?.closed(token, target))
      const watch = witness?.watch.bind(witness)
      await carryUpgrade({ ...asked, token, target, patienceMs: HEADERS_TIMEOUT_MS, watch })
    }
    await witnessed(witness, carried())
  }

  /** The session of a request that may be carried. */
  async #admit(request: IncomingMessage, name: AppName, { idle, check }: Asks): Promise<Admitted> {
    const session = this.#sessionOf(request, name)
    if (foreign(request))
      throw new Refusal('app.foreign', 'another site asked for this in your name', {
        nextStep: 'open the application by itself and do it there',
      })
    check?.(request)
    const witness = await this.#decide(request, session, idle)
    return { session, witness }
  }

  #enter(request: IncomingMessage, response: ServerResponse, name: AppName): void {
    const { signIns, room } = this.#apps
    const ticket = new URL(request.url ?? '/', 'https://app').searchParams.get('ticket') ?? ''
    const entered = request.method === 'GET' ? signIns.enter(ticket, room.now()) : undefined
    const session = entered === undefined ? undefined : room.live.get(entered.session)
    if (
      entered === undefined ||
      session?.process !== name.process ||
      session.device !== name.device
    )
      throw new Refusal(
        'app.ticket',
        'this link has been used, is too old, or belongs to another application',
        {
          nextStep: `get a new one: sallyport open ${name.device}/${name.process}`,
        },
      )
    response.writeHead(303, {
      location: '/',
      'set-cookie': `${APP_COOKIE}=${entered.cookie}; Path=/; Secure; HttpOnly; SameSite=Lax`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'content-length': '0',
    })
    response.end()
  }

  #sessionOf(request: IncomingMessage, name: AppName): LiveSession {
    const { signIns, room } = this.#apps
    const { value } = takeCookie(request.headers.cookie, APP_COOKIE)
    const id = value === undefined ? undefined : signIns.find(value)
    const session = id === undefined ? undefined : room.live.get(id)
    if (
      session?.state !== 'open' ||
      session.process !== name.process ||
      session.device !== name.device
    )
      throw new Refusal('app.cookie', 'no session to this application is open in this browser', {
        nextStep: `open one: sallyport open ${name.device}/${name.process}`,
      })
    return session
  }

  /** Every request has its answer, and what may not be seen through is refused before policy is asked. */
  async #decide(
    request: IncomingMessage,
    session: LiveSession,
    idle: boolean,
  ): Promise<Witness | undefined> {
    const question = questionOf(request, idle)
    const answer =
      this.#permits.find(session, question) ?? (await this.#permits.ask(session, question))
    const { now } = this.#apps.room
    const { recording, subject } = session
    const asked = { request, source: question.source, user: subject.id, decision: answer.id, now }
    const witness = recording?.format === 'weblog' ? new Witness(recording, asked) : undefined
    if (answer.refusal !== undefined) witness?.end(answer.code)
    await answer.recorded
    if (answer.refusal !== undefined) throw answer.refusal
    // It may have ended while the request was recorded: then it gets no pool that nobody would close.
    if (session.state !== 'open') throw new Refusal('session.ended', 'the session has ended')
    answer.carried()
    return witness
  }

  async #forward(
    request: IncomingMessage,
    response: ServerResponse,
    session: LiveSession,
    { witness, hasBody }: { readonly witness: Witness | undefined; readonly hasBody: boolean },
  ): Promise<void> {
    const pool = this.#poolOf(session, sourceOf(request))
    await new Promise<void>((resolve, reject) => {
      const answer = relay(request, response, resolve, reject)
      pool.dispatch(
        {
          origin: 'http://target',
          method: (request.method ?? 'GET') as Dispatcher.HttpMethod,
          path: request.url ?? '/',
          headers: requestHeaders(
            request.rawHeaders,
            hasBody ? (request.headers['content-length'] ?? null) : null,
          ),
          body: hasBody ? (witness?.body() ?? request) : null,
        },
        witness?.watch(answer) ?? answer,
      )
    })
  }

  /** The first request's connection opens it: its streams come from where that one came from. */
  #poolOf(session: LiveSession, source: Source): Pool {
    const before = this.#pools.get(session.id)
    if (before !== undefined) return before
    const pool = new Pool('http://target', {
      connections: Math.min(8, session.obligations.max_streams),
      pipelining: 1,
      headersTimeout: HEADERS_TIMEOUT_MS,
      bodyTimeout: BODY_TIMEOUT_MS,
      connect: (_options, done) => {
        this.#dial(session, source).then(
          (socket) => done(null, socket as never),
          (error: unknown) => done(error instanceof Error ? error : new Error(String(error)), null),
        )
      },
    })
    this.#pools.set(session.id, pool)
    return pool
  }

  /** A connection of the pool is a stream of the session: proven, decided and metered like any other. */
  async #dial(session: LiveSession, source: Source, gone = () => false): Promise<Metered> {
    const { room, openings } = this.#apps
    await inTheirTurn(openings, session, {
      get cancelled() {
        return session.state !== 'open' || gone()
      },
    })
    const { stream, entry } = await openStream(room, session, source)
    const duplex = new Metered(stream, {
      pace: session.pace,
      hold: session.hold,
      meter: (direction, bytes) => count(room, session, direction, bytes),
    })
    duplex.once('close', () => leave(room, session, entry))
    duplex.on('error', () => {})
    entry.carrier = {
      cut({ code, message }) {
        const closed = new Promise<void>((resolve) => void duplex.once('close', resolve))
        if (duplex.closed) return Promise.resolve()
        duplex.destroy(Object.assign(new Error(message), { code }))
        return closed
      },
    }
    if (session.state !== 'open') {
      await entry.carrier.cut({ code: 'session.ended', message: 'the session has ended' }, 'over')
      throw new Refusal('session.ended', 'the session has ended')
    }
    return duplex
  }

  [Symbol.dispose](): void {
    this.#permits[Symbol.dispose]()
    for (const id of this.#pools.keys()) this.close(id)
  }
}

interface Asks {
  /** It wants nothing but an answer. */
  readonly idle: boolean
  /** Looks at it before anybody is asked. */
  readonly check?: (request: IncomingMessage) => unknown
}

interface Admitted {
  readonly session: LiveSession
  /** Of a session that is recorded. */
  readonly witness: Witness | undefined
}

function bodyOf({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

function questionOf(request: IncomingMessage, idle: boolean): WebQuestion {
  const { method = '', headers, url = '' } = request
  const reads = idle && (method === 'GET' || method === 'HEAD')
  const path = url.replace(/[?#].*$/s, '')
  return { method, host: headers.host ?? '', path, source: sourceOf(request), reads }
}

/** What became of a request is written down, whichever way it ended. */
async function witnessed(witness: Witness | undefined, work: Promise<void>): Promise<void> {
  try {
    await work
    witness?.done()
  } catch (error) {
    witness?.end(error instanceof Refusal ? error.shownCode : 'app.upstream')
    throw error
  }
}

function nameOf(label: string): AppName {
  const name = parseAppLabel(label)
  if (name === undefined) throw new Refusal('route.unknown', 'no application has this name')
  return name
}

/** The application's own failures, and connections that were cut: the answer says so, and the events do. */
function upstreams(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error ? String(error.code) : ''
  return (
    code.startsWith('UND_ERR') ||
    error.name === 'HTTPParserError' ||
    // undici says so where an answer of 101 names no protocol.
    code === 'ERR_ASSERTION' ||
    /^[a-z]+\.[a-z_.]+$/.test(code)
  )
}

/**
 * Whether another site's page is behind this request. Apps of one domain are one site to a browser,
 * so its cookie comes along; only following a link into the app is a person's own act.
 */
function foreign(request: IncomingMessage): boolean {
  const { origin, host } = request.headers
  if (origin !== undefined && origin.toLowerCase() !== `https://${(host ?? '').toLowerCase()}`)
    return true
  const site = request.headers['sec-fetch-site']
  if (site !== 'same-site' && site !== 'cross-site') return false
  return request.method !== 'GET' || request.headers['sec-fetch-mode'] !== 'navigate'
}
