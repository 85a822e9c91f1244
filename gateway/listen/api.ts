/** `/api/v1`: every call authenticated, decided, validated; errors as problems. Routes live in `api/`. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import swagger from '@fastify/swagger'
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyRequest } from 'fastify'
import { Problem } from '#api'
import { sourceOf } from '../access/source.ts'
import type { AnswerStore } from '../answers.ts'
import { plainAddress, type Source } from '../facts.ts'
import { isRefusal, scopeOf, type Identity, type Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal, toProblem } from '../problem.ts'
import { storeRefusal } from '../store-refusal.ts'
import { StoreError } from '../store/sqlite/thread.ts'
import type { Handler } from './front.ts'
import { doOnce } from './once.ts'
import { limitRates, type Limits, type Rating } from './rated.ts'
import { sayWhen } from './rates.ts'

/** JSON bodies of this API are small; what is larger is a mistake or an attack. */
const BODY_LIMIT = 64 * 1024

export interface ApiOptions {
  readonly version: string
  readonly identity: Pick<Identity, 'authenticate' | 'scopesOf'>
  /** A service called what none of its scopes opens. Resolves when that is recorded. */
  readonly outOfScope: (subject: Subject, source: Source, route: string) => Promise<void>
  /** Somebody at this address has proven who they are. */
  readonly proven: (address: string) => void
  readonly rating: Rating
  /** Where answers of writes with a key are kept. */
  readonly answers: AnswerStore
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
  /** Adds the calls; each names its own schemas. */
  readonly routes: (api: Api) => void
}

export interface Api {
  readonly server: ApiServer
  /** Who asks. Throws Refusal `identity.refused`, with the provider's own code and sentence. */
  caller(request: FastifyRequest): Promise<Subject>
  source(request: FastifyRequest): Source
  /** Policy refuses the call, and that is not recorded yet. Throws RateRefusal where that was so too often. */
  refusing(request: FastifyRequest, subject: Subject): void
  /** The call may be made, takes away nothing that is there, and is not recorded yet. Throws RateRefusal where that was so too often. */
  idling(request: FastifyRequest, subject: Subject): void
}
export type ApiServer = FastifyInstance<
  Server,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** What a refused identity adds to the answer beside the problem. */
class IdentityRefusal extends Refusal {
  readonly status: number
  readonly challenge: string | null
  constructor(
    code: string,
    status: number,
    detail: string,
    nextStep: string,
    challenge: string | null,
  ) {
    super('identity.refused', detail, { nextStep, denials: [{ code, msg: detail }] })
    this.status = status
    this.challenge = challenge
  }
}

/** Builds the API as a plain handler: it never listens by itself. */
export async function createApi(options: ApiOptions): Promise<Handler & AsyncDisposable> {
  let handle: Handler | undefined
  const server: ApiServer = Fastify({
    bodyLimit: BODY_LIMIT,
    genReqId: () => newId('r'),
    // The edge has the port; fastify gets requests handed in.
    serverFactory: (handler) => {
      handle = handler
      return unheard(handler)
    },
  })
    .withTypeProvider<TypeBoxTypeProvider>()
    .setValidatorCompiler(TypeBoxValidatorCompiler)
  answerErrors(server, options)
  const limits = limitRates(server, options.rating)
  // A proof is good once (RFC 9449, 11.1), and a call asks who its caller is more than once.
  const callers = new WeakMap<FastifyRequest, Promise<Subject>>()
  await server.register(swagger, {
    transform: described,
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Sallyport', version: options.version },
      components: {
        securitySchemes: { dpop: { type: 'http', scheme: 'DPoP', description: 'RFC 9449' } },
      },
      security: [{ dpop: [] }],
    },
  })
  const caller = async (request: FastifyRequest): Promise<Subject> => {
    const known = callers.get(request) ?? authenticate(options, request, limits)
    callers.set(request, known)
    return known
  }
  await server.register((scoped, _opts, done) => {
    const own = scoped as unknown as ApiServer
    const { answers: store, now, report } = options
    doOnce(own, { store, caller, now, report })
    const source = (request: FastifyRequest) => sourceOf(request.raw)
    options.routes({ server: own, source, caller, refusing: limits.refuse, idling: limits.idle })
    done()
  })
  server.get('/api/v1/openapi.json', { schema: { hide: true } }, () => server.swagger())
  await server.ready()
  if (handle === undefined) throw new Error('fastify made no handler')
  return Object.assign(handle, { [Symbol.asyncDispose]: () => server.close() })
}

/** What every call's description has beside its own schemas: a name, the room it belongs to, how it refuses. */
function described<S>({
  schema,
  url,
  route,
}: {
  schema: S
  url: string
  route: { method: string | string[] }
}) {
  const words = url.replace('/api/v1/', '').replaceAll(/[:{}]/g, '').split('/')
  const own = schema as { readonly response?: object } | undefined
  return {
    url,
    schema: {
      ...schema,
      operationId: [String(route.method).toLowerCase(), ...words].join('_').replaceAll('-', '_'),
      tags: [words[0] ?? ''],
      response: {
        ...own?.response,
        default: { description: 'RFC 9457: application/problem+json', ...Problem },
      },
    },
  }
}

async function authenticate(
  options: ApiOptions,
  request: FastifyRequest,
  limits: Limits,
): Promise<Subject> {
  const answer = await options.identity.authenticate(
    { method: request.method, url: request.raw.url ?? '/', headers: request.headers },
    options.now(),
  )
  if (!isRefusal(answer)) {
    options.proven(plainAddress(request.raw.socket.remoteAddress ?? ''))
    limits.admit(request, answer)
    if (answer.kind === 'service') await staysInScope(options, request, answer, limits)
    return answer
  }
  throw new IdentityRefusal(
    answer.code,
    answer.status,
    answer.detail,
    answer.nextStep,
    answer.wwwAuthenticate,
  )
}

/** A service calls what one of its scopes opens, whatever its roles are. Throws Refusal `service.scope`. */
async function staysInScope(
  { identity, outOfScope }: ApiOptions,
  request: FastifyRequest,
  subject: Subject,
  { refuse }: Limits,
): Promise<void> {
  const route = `${request.method} ${request.routeOptions.url ?? ''}`
  const needed = scopeOf(route)
  const held = identity.scopesOf(subject) ?? []
  if (needed === null || (needed !== undefined && held.includes(needed))) return
  refuse(request, subject)
  await outOfScope(subject, sourceOf(request.raw), route)
  throw new Refusal(
    'service.scope',
    needed === undefined ? 'no service may call this' : `this takes the scope ${needed}`,
    { nextStep: 'an administrator enters a service with the scopes it needs' },
  )
}

/** A server object that fastify can own without a port of its own. */
function unheard(handler: (request: IncomingMessage, response: ServerResponse) => void) {
  return createServer(handler)
}

/** How every failure of a call is answered: as a problem (RFC 9457), and reported where it is ours. */
export function answerErrors(server: ApiServer, options: Pick<ApiOptions, 'report'>): void {
  server.setErrorHandler((error: unknown, request, reply) => {
    const refusal = toRefusal(error, request.routeOptions.bodyLimit ?? BODY_LIMIT)
    if (refusal.code === 'node.fault' || refusal.code === 'store.unavailable')
      options.report(error, `${request.method} ${request.routeOptions.url ?? request.url}`)
    const problem = toProblem(refusal, request.id)
    if (refusal instanceof IdentityRefusal) {
      problem.status = refusal.status
      if (refusal.challenge !== null) void reply.header('www-authenticate', refusal.challenge)
    }
    sayWhen(reply, refusal)
    return reply.status(problem.status).type('application/problem+json').send(problem)
  })
  server.setNotFoundHandler((request) => {
    throw new Refusal(
      'route.unknown',
      `${request.method} ${request.url.split('?')[0]} is not a call of this API`,
      {
        nextStep: 'the calls are listed in /api/v1/openapi.json',
      },
    )
  })
}

/** `limit`: octets that the body of this very call may have. */
function toRefusal(error: unknown, limit: number): Refusal {
  if (error instanceof Refusal) return error
  if (error instanceof Error && 'validation' in error && error.validation !== undefined)
    return new Refusal('body.invalid', error.message, { cause: error })
  if (error instanceof Error && 'code' in error) {
    if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
      return new Refusal('body.too_large', `the body of this call has at most ${limit} bytes`, {
        cause: error,
      })
    const foreign = 'statusCode' in error ? error.statusCode : undefined
    if (typeof foreign === 'number' && foreign >= 400 && foreign < 500)
      return new Refusal('body.invalid', error.message, { cause: error })
    if (typeof error.code === 'string' && error.code.startsWith('log.'))
      return new Refusal(
        'log.unavailable',
        'the event could not be recorded, so nothing was done',
        {
          cause: error,
          nextStep: 'look at the disk of the gateway: its log must be writable',
        },
      )
  }
  if (error instanceof StoreError) return storeRefusal(error)
  return new Refusal(
    'node.fault',
    'the gateway failed; the request id finds the fault in its log',
    { cause: error },
  )
}
