/**
 * What tells the world of revocations: a CRL per issuing CA, made at once and hourly, and OCSP
 * answers. Plain paths on the one port, open to everybody: `/crl/<issuer>.crl`, `/ocsp`.
 */
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  answerOcsp,
  decodeBody,
  instant,
  issueCrl,
  issueResponder,
  OCSP_REQUEST_LIMIT,
  OcspAnswers,
  ocspRefusal,
  resumeRevocations,
  revokeLapsed,
  softwareSigner,
} from '#ca'
import type {
  CaLog,
  CaStore,
  Crl,
  CrlNumbers,
  Issuers,
  OcspAnswer,
  Responder,
  RevocationIntentions,
  RevocationRow,
} from '#ca'

type Issuer = Issuers['all'][number]

export interface PublicationOptions {
  readonly tenant: string
  readonly gateway: string
  readonly issuers: () => Issuers
  readonly store: CaStore & RevocationIntentions & CrlNumbers
  readonly log: CaLog
  /** Ends what is open of a revocation that is carried out late: nobody waits for its answer. */
  readonly cut: (row: RevocationRow) => Promise<void>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

const EVERY_MS = 3_600_000
/** Caches on the way may keep a list or an answer for this long; both hold far longer. */
const MAX_AGE_S = 60
/** Each answer costs reading a row and at most one signature; what comes on top is told to try later. */
const ANSWERS_PER_SECOND = 1_000

export class Publication implements AsyncDisposable {
  readonly #options: PublicationOptions
  readonly #crls = new Map<string, Crl>()
  readonly #responders = new Map<string, Promise<Responder>>()
  /** When none could be made, by issuer; epoch milliseconds. */
  readonly #without = new Map<string, number>()
  readonly #answers = new OcspAnswers()
  readonly #timer: NodeJS.Timeout
  /** CRLs are made one after another, so that a later number never tells less. Never rejects. */
  #making: Promise<void> = Promise.resolve()
  #queued: Promise<void> | undefined
  #second = 0
  #asked = 0

  private constructor(options: PublicationOptions) {
    this.#options = options
    this.#timer = setInterval(() => void this.#hourly(), EVERY_MS)
    this.#timer.unref()
  }

  /** Carries out what a crash left intended, then makes the first lists. Rejects with CaError. */
  static async open(options: PublicationOptions): Promise<Publication> {
    const { tenant, now } = options
    await resumeRevocations(tenant, instant(now()), options)
    await revokeLapsed(tenant, instant(now()), options)
    const publication = new Publication(options)
    await publication.refresh()
    return publication
  }

  /** The current list of every issuing CA whose key is at hand; a new one where it has run out. */
  async lists(): Promise<readonly Crl[]> {
    const late = this.#issuers().some(({ id }) => !this.#holds(this.#crls.get(id)))
    if (late) await this.refresh()
    return this.#issuers().flatMap(({ id }) => this.#crls.get(id) ?? [])
  }

  /** Makes every list anew; calls that come while one waits its turn share it. */
  refresh(): Promise<void> {
    this.#queued ??= this.#making.then(() => {
      this.#queued = undefined
      const made = this.#make()
      this.#making = made.catch(() => {})
      return made
    })
    return this.#queued
  }

  /** A revocation holds: new lists, and no responder that it ended. */
  revoked = (row: RevocationRow): void => {
    for (const [id, made] of this.#responders)
      made.then(
        ({ serial }) => {
          if (row.serials.includes(serial)) this.#responders.delete(id)
        },
        () => {},
      )
    this.refresh().catch((error: unknown) =>
      this.#options.report(error, 'a new revocation list could not be made'),
    )
  }

  async #hourly(): Promise<void> {
    const { tenant, now, report, cut, store, log } = this.#options
    const carriedOut = async (row: RevocationRow) => {
      this.revoked(row)
      await cut(row)
    }
    try {
      await resumeRevocations(tenant, instant(now()), { store, log, carriedOut })
      await revokeLapsed(tenant, instant(now()), { store, log, carriedOut })
      await this.refresh()
    } catch (error) {
      report(error, 'the hourly revocation lists could not be made; the last ones are served on')
    }
  }

  #issuers(): readonly Issuer[] {
    return this.#options.issuers().all.filter(({ signer }) => signer !== undefined)
  }

  #holds(crl: Crl | undefined): crl is Crl {
    return crl !== undefined && this.#options.now() < crl.nextUpdate
  }

  async #make(): Promise<void> {
    const { tenant, store, now } = this.#options
    for (const issuer of this.#issuers()) {
      if (issuer.signer === undefined) continue
      const options = { tenant, store, now: instant(now()) }
      this.#crls.set(issuer.id, await issueCrl({ ...issuer, signer: issuer.signer }, options))
    }
  }

  /** The responder of an issuer; made when first asked for, and again at two thirds of its life. */
  async #responder(issuer: Issuer): Promise<Responder | undefined> {
    if (issuer.signer === undefined) return undefined
    const kept = this.#responders.get(issuer.id)
    const known = kept === undefined ? undefined : await kept.catch(() => undefined)
    const { tenant, gateway, issuers, store, log } = this.#options
    const now = instant(this.#options.now())
    if (known !== undefined && now < known.notAfter - RESPONDER_LEFT_MS) return known
    // Anybody may ask, and each try leaves an intention: while disk or key are away, questions make none.
    if (
      kept !== undefined &&
      Math.abs(now - (this.#without.get(issuer.id) ?? -Infinity)) < RETRY_MS
    )
      return await kept
    // Somebody who waited as well was quicker: one responder is enough.
    const newer = this.#responders.get(issuer.id)
    if (newer !== kept && newer !== undefined) return await newer
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const signer = softwareSigner(privateKey)
    const random = (bytes: number) => randomBytes(bytes)
    const request = { tenant, gateway, issuers: issuers(), issuer, signer, now, random }
    const made = issueResponder(request, { store, log })
    this.#responders.set(issuer.id, made)
    made.catch(() => this.#without.set(issuer.id, now))
    return await made
  }

  /** Serves `/crl/…` and `/ocsp…`; what breaks on the way is reported and ends the connection. */
  handle = (request: IncomingMessage, response: ServerResponse): void => {
    this.#handle(request, response).catch((error: unknown) => {
      if (!request.destroyed) this.#options.report(error, 'a revocation request was not answered')
      response.destroy()
    })
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '/').split('?')[0] ?? '/'
    if (path.startsWith('/crl/')) await this.#serveCrl(path, request, response)
    else await this.#serveOcsp(path, request, response)
  }

  async #serveCrl(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!takes(['GET', 'HEAD'], request, response)) return
    const id = /^\/crl\/([0-9a-f]{40})\.crl$/.exec(path)?.[1] ?? ''
    const kept = this.#crls.get(id)
    // One that has run out, because its key has not answered since, is still the last word there is.
    const crl = this.#holds(kept) ? kept : ((await this.#listOf(id)) ?? kept)
    if (crl === undefined) {
      plain(response, 404, 'no issuing CA of this gateway has this key identifier')
      return
    }
    const etag = `"${createHash('sha256').update(crl.der).digest('base64url')}"`
    caching(response, etag, crl)
    if (request.headers['if-none-match'] === etag) response.writeHead(304).end()
    else send(response, 'application/pkix-crl', request.method === 'HEAD', crl.der)
  }

  async #listOf(id: string): Promise<Crl | undefined> {
    try {
      return (await this.lists()).find(({ issuer }) => issuer === id)
    } catch (error) {
      this.#options.report(error, 'a revocation list could not be made')
      return undefined
    }
  }

  async #serveOcsp(
    path: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const inPath = path.startsWith('/ocsp/') && path.length > '/ocsp/'.length
    if (!takes(inPath ? ['GET'] : ['POST'], request, response)) return
    const question = inPath ? fromPath(path) : await posted(request, response)
    if (question === 'answered') return
    const answer =
      question === 'unreadable' ? ocspRefusal('malformedRequest') : await this.#ask(question)
    // RFC 5019 6: what was asked in a path, and holds no nonce, caches may keep.
    const { thisUpdate, nextUpdate, shared } = answer
    if (inPath && shared && thisUpdate !== null && nextUpdate !== null) {
      const etag = `"${createHash('sha256').update(answer.der).digest('base64url')}"`
      caching(response, etag, { thisUpdate, nextUpdate })
    } else response.setHeader('cache-control', 'no-store')
    send(response, 'application/ocsp-response', false, answer.der)
  }

  async #ask(question: Uint8Array): Promise<OcspAnswer> {
    const second = Math.floor(performance.now() / 1000)
    if (second !== this.#second) [this.#second, this.#asked] = [second, 0]
    if (++this.#asked > ANSWERS_PER_SECOND) return ocspRefusal('tryLater')
    const { tenant, issuers, store, now, report } = this.#options
    return await answerOcsp(
      question,
      {
        tenant,
        issuers: issuers(),
        store,
        responder: (issuer) => this.#responder(issuer),
        answers: this.#answers,
        now: instant(now()),
      },
      (error) => report(error, 'an OCSP request could not be answered'),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await (this.#queued ?? this.#making).catch(() => {})
  }
}

/** So long after a failure no responder is made. */
const RETRY_MS = 10_000

/** A responder lives seven days; with a third of them left it is replaced. */
const RESPONDER_LEFT_MS = (7 * 24 * 3_600_000) / 3

function takes(
  methods: readonly string[],
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  if (methods.includes(request.method ?? '')) return true
  response.setHeader('allow', methods.join(', '))
  plain(response, 405, `use ${methods.join(' or ')}`)
  return false
}

/** RFC 6960 A.1: the url-encoded base64 of the request, after the last part of the address. */
function fromPath(path: string): Uint8Array | 'unreadable' {
  try {
    return decodeBody(decodeURIComponent(path.slice('/ocsp/'.length))) ?? 'unreadable'
  } catch {
    // A percent sign that begins no octet.
    return 'unreadable'
  }
}

/** The body of a POST; one that is not taken has its answer already. */
async function posted(
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Uint8Array | 'answered'> {
  if (request.headers['content-type'] !== 'application/ocsp-request') {
    plain(response, 415, 'send Content-Type: application/ocsp-request')
    return 'answered'
  }
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    size += chunk.length
    chunks.push(chunk)
    if (size <= OCSP_REQUEST_LIMIT) continue
    response.setHeader('connection', 'close')
    plain(response, 413, `a request has at most ${OCSP_REQUEST_LIMIT} bytes`)
    return 'answered'
  }
  return Buffer.concat(chunks)
}

function caching(
  response: ServerResponse,
  etag: string,
  { thisUpdate, nextUpdate }: { readonly thisUpdate: number; readonly nextUpdate: number },
): void {
  response.setHeader('etag', etag)
  response.setHeader('last-modified', new Date(thisUpdate).toUTCString())
  response.setHeader('expires', new Date(nextUpdate).toUTCString())
  response.setHeader('cache-control', `public, max-age=${MAX_AGE_S}, no-transform, must-revalidate`)
}

function send(response: ServerResponse, type: string, head: boolean, body: Uint8Array): void {
  response.setHeader('content-type', type)
  response.setHeader('content-length', body.length)
  if (head) response.end()
  else response.end(body)
}

function plain(response: ServerResponse, status: number, sentence: string): void {
  const body = `${sentence}\n`
  response.statusCode = status
  response.setHeader('cache-control', 'no-store')
  send(response, 'text/plain; charset=utf-8', false, Buffer.from(body))
}
