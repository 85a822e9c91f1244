/**
 * Writes that are done once, however often they are sent: a call with an `Idempotency-Key` is claimed in the store before
 * it begins, and its answer kept before it is sent. What is sent again gets that answer; what stood half done when the
 * node went down, or failed in the middle, is never done again by itself: whoever sent it is told to look.
 */
import { createHash, createHmac } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { AnswerStore, Claimed, Kept } from '../answers.ts'
import type { Subject } from '../identity/index.ts'
import { Refusal } from '../problem.ts'
import type { ApiServer } from './api.ts'
import { classOf } from './rates.ts'

/** How long an answer is kept at most, and how many of one identity and of all. Of one identity the newest are kept. */
const KEPT_MS = 86_400_000
const MOST = { own: 5_000, all: 100_000 } as const
/** Longer answers are not kept: they are told once. */
const LONGEST = 8_192

/** Writes whose answer holds a secret, or what opens like one: it is told once, and kept nowhere. */
export const TOLD_ONCE: ReadonlySet<string> = new Set([
  'POST /api/v1/sessions',
  'POST /api/v1/sessions/:id/socket',
  'POST /api/v1/devices',
  'POST /api/v1/devices/:id/token',
  'POST /api/v1/devices/:id/replace',
  'POST /api/v1/invitations',
  'POST /api/v1/accounts/:id/renew',
  'POST /api/v1/auditors',
  'POST /api/v1/passkeys',
  'POST /api/v1/totp',
  'POST /api/v1/step-up',
  'POST /api/v1/approvers/signature',
  'POST /api/v1/grants/:id/approval',
])

export interface Onces {
  readonly store: AnswerStore
  readonly caller: (request: FastifyRequest) => Promise<Subject>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

const routeOf = (request: FastifyRequest): string =>
  `${request.method} ${request.routeOptions.url ?? ''}`

/** Around every write of `server` that carries a key. */
export function doOnce(server: ApiServer, onces: Onces): void {
  const running = new WeakMap<FastifyRequest, string>()
  /** What this process has begun and not answered; all else that the store has as begun is another gateway's, or nobody's any more. */
  const begun = new Set<string>()
  server.addHook('preHandler', async (request, reply) => {
    const given = request.headers['idempotency-key']
    if (given === undefined || request.method === 'GET' || request.method === 'HEAD') return
    const key = readKey(given)
    const subject = await onces.caller(request)
    const name = createHash('sha256').update(`${subject.id}\0${key}`).digest('hex')
    const cutting = classOf(routeOf(request)) === 'cut'
    const claimed = await claim(onces, request, { name, key, owner: subject.id, cutting })
    if (claimed === undefined) return
    if (claimed.outcome === 'claimed') {
      running.set(request, name)
      begun.add(name)
      return
    }
    // What takes access away is done again rather than not at all.
    const here = begun.has(name)
    if (isOpen(claimed) && !here && cutting) return
    return answerAgain(reply, claimed, here || isElsewhere(claimed))
  })
  server.addHook('onSend', async (request, reply, payload) => {
    const name = running.get(request)
    if (name === undefined) return
    running.delete(request)
    await keep(onces, request, { name, status: reply.statusCode, payload })
    begun.delete(name)
  })
  server.addHook('onResponse', (request, _reply, done) => {
    const name = running.get(request)
    if (name !== undefined) begun.delete(name)
    done()
  })
}

type Outcome = Exclude<Claimed, { outcome: 'full' }>

interface Asked {
  readonly name: string
  readonly key: string
  readonly owner: string
  readonly cutting: boolean
}

/** Undefined: it is done without being remembered, since it takes access away and the store does not answer or is full. */
async function claim(
  { store, now, report }: Onces,
  request: FastifyRequest,
  { name, key, owner, cutting }: Asked,
): Promise<Outcome | undefined> {
  const print = fingerprint(key, request)
  const at = now()
  const asked = { name, print, owner: digest(owner), at, until: at + KEPT_MS, most: MOST }
  try {
    const claimed = await store.claim(asked)
    if (claimed.outcome !== 'full') return claimed
  } catch (error) {
    if (!cutting) throw error
    report(error, 'a write that takes access away is done without its key')
    return undefined
  }
  if (cutting) return undefined
  throw new Refusal('idempotency.full', 'as many keys are kept as there can be', {
    nextStep: 'send fewer writes with a key; each is kept for a day',
  })
}

/** Keeps the answer before it is sent. A refusal changed nothing: the key is free again. A fault leaves open what was done. */
async function keep(
  { store, report }: Onces,
  request: FastifyRequest,
  { name, status, payload }: { name: string; status: number; payload: unknown },
): Promise<void> {
  try {
    if (status >= 400 && status < 500) await store.release(name)
    else if (status < 400) {
      const text = typeof payload === 'string' && payload.length <= LONGEST ? payload : null
      await store.finish(name, { status, body: TOLD_ONCE.has(routeOf(request)) ? null : text })
    } else await store.finish(name, { status, body: null })
  } catch (error) {
    // It was done: whoever sends it again is told to look.
    report(error, `the answer to ${request.id} is not kept`)
  }
}

/** Nobody knows whether it was done: it has no answer, or a fault as its answer. */
function isOpen(claimed: Outcome): boolean {
  return claimed.outcome === 'begun' || (claimed.outcome === 'done' && claimed.kept.status >= 500)
}

/** Another gateway may be doing it now. */
function isElsewhere(claimed: Outcome): boolean {
  return claimed.outcome === 'begun' && claimed.elsewhere
}

function answerAgain(
  reply: FastifyReply,
  claimed: Exclude<Outcome, { outcome: 'claimed' }>,
  running: boolean,
): FastifyReply {
  if (claimed.outcome === 'other')
    throw new Refusal('idempotency.other', 'this key was used for another call, or another body', {
      nextStep: 'make a new key for each write',
    })
  if (claimed.outcome === 'done' && !isOpen(claimed)) return replay(reply, claimed.kept)
  if (running) {
    void reply.header('retry-after', '1')
    throw new Refusal('idempotency.running', 'the first call with this key is being done', {
      nextStep: 'send it again in a second',
    })
  }
  throw new Refusal(
    'idempotency.unknown',
    'a call with this key was begun, and the gateway failed or went down before it was answered',
    { nextStep: 'look whether it was done; if it was not, send it with a new key' },
  )
}

function replay(reply: FastifyReply, { status, body }: Kept): FastifyReply {
  if (body === null)
    throw new Refusal('idempotency.told', 'this was done, and its answer is told once', {
      nextStep: 'look at what was made; withdraw it and make another with a new key',
    })
  return reply
    .status(status)
    .headers({ 'idempotency-replayed': 'true', 'cache-control': 'no-store' })
    .type('application/json; charset=utf-8')
    .send(body)
}

/** A structured string or a bare one: 16 to 128 visible characters. Throws Refusal `idempotency.key`. */
function readKey(given: string | readonly string[]): string {
  const [, quoted, bare] =
    typeof given === 'string'
      ? (/^(?:"([!#-[\]-~]{16,128})"|([!#-+\--[\]-~]{16,128}))$/.exec(given) ?? [])
      : []
  const key = quoted ?? bare
  if (key === undefined)
    throw new Refusal('idempotency.key', 'an Idempotency-Key has 16 to 128 visible characters', {
      nextStep: 'make a random one for each write, such as a UUID',
    })
  return key
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex')

/** Under the key, which is kept nowhere: a password in a body cannot be guessed from what is kept. */
function fingerprint(key: string, request: FastifyRequest): string {
  const { method, body } = request
  const hmac = createHmac('sha256', key).update(`${method} ${request.raw.url ?? ''}\0`)
  return hmac.update(body instanceof Uint8Array ? body : (JSON.stringify(body) ?? '')).digest('hex')
}
