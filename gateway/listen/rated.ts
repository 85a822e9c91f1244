/** The limits of `rates.ts` around every call of the API, and what is told of those who meet them. */
import type { FastifyRequest } from 'fastify'
import { sourceOf } from '../access/source.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import type { ApiServer } from './api.ts'
import { Quiet } from './quiet.ts'
import { RateRefusal, type Counted, type Rates } from './rates.ts'

/** Somebody asked too often. */
export interface Flood {
  readonly code: string
  readonly route: string
  readonly source: Source
  /** Undefined: nobody known here. */
  readonly subject: Subject | undefined
  /** How many more of this kind were refused since the last that was told. */
  readonly suppressed: number
}

export interface Rating {
  readonly rates: Rates
  /** Told the first of a kind and minute. */
  readonly flooded: (flood: Flood) => void
}

/** The name of a call: its method and its path as it was declared; of what is no call, its method alone. */
function routeOf(request: FastifyRequest): string {
  return `${request.method} ${request.routeOptions.url ?? ''}`
}

/** What is to be asked of a call that was counted. Each throws RateRefusal. */
export interface Limits {
  /** Its caller is known. */
  readonly admit: (request: FastifyRequest, subject: Subject) => void
  /** It will be refused, which is not recorded yet. */
  readonly refuse: (request: FastifyRequest, subject: Subject) => void
  /** It is allowed and changes nothing, which is not recorded yet. */
  readonly idle: (request: FastifyRequest, subject: Subject) => void
}

/** Counts every call. */
export function limitRates(server: ApiServer, { rates, flooded }: Rating): Limits {
  const counted = new WeakMap<FastifyRequest, Counted>()
  const quiet = new Quiet()
  const telling = <T>(request: FastifyRequest, subject: Subject | undefined, count: () => T): T => {
    try {
      return count()
    } catch (error) {
      if (!(error instanceof RateRefusal)) throw error
      const route = routeOf(request)
      const source = sourceOf(request.raw)
      const who = subject?.id ?? source.ip ?? ''
      const suppressed = quiet.tell(`${error.code} ${who}`, performance.now())
      if (suppressed !== undefined)
        flooded({ code: error.code, route, source, subject, suppressed })
      throw error
    }
  }
  server.addHook('onRequest', (request, _reply, done) => {
    const { authorization, dpop } = request.headers
    const address = sourceOf(request.raw).ip ?? ''
    const proof = typeof dpop === 'string' ? dpop : undefined
    const call = { route: routeOf(request), address, authorization, proof }
    telling(request, undefined, () => {
      counted.set(request, rates.enter(call, performance.now()))
    })
    done()
  })
  server.addHook('onResponse', (request, reply, done) => {
    const call = counted.get(request)
    if (call !== undefined) rates.leave(call, reply.statusCode)
    done()
  })
  const ask =
    (what: 'admit' | 'refuse' | 'idle') => (request: FastifyRequest, subject: Subject) => {
      const call = counted.get(request)
      if (call === undefined) return
      telling(request, subject, () => {
        rates[what](call, subject.id, performance.now())
      })
    }
  return { admit: ask('admit'), refuse: ask('refuse'), idle: ask('idle') }
}
