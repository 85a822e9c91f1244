/**
 * Bodies of octets, up to megabytes, in a scope of their own: nothing of one is read before its sender is known and
 * allowed, nothing else is parsed there, and one is read at a time on each call, so that it is bounded what they hold.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Refusal, type ProblemCode } from '../problem.ts'
import type { Caller } from './authorize.ts'

export interface OctetBodies {
  readonly types: readonly string[]
  /** The longest, in bytes. */
  readonly limit: number
  /** Says who sends it. Rejects where they may not: the body is not read then. */
  readonly admit: (request: FastifyRequest) => Promise<Caller>
  /** Answers who comes while another is being read or worked on. */
  readonly busy: ProblemCode
}

/**
 * Makes the POSTs of the scope `server` take octets alone. Gives who `admit` said sends one of them. Refuses with
 * `busy`, and with what `admit` refuses with.
 */
export function takeOctets(
  server: FastifyInstance,
  { types, limit, admit, busy }: OctetBodies,
): (request: FastifyRequest) => Caller {
  const callers = new WeakMap<FastifyRequest, Caller>()
  const reading = new Set<string>()
  server.removeAllContentTypeParsers()
  server.addContentTypeParser(
    [...types],
    { parseAs: 'buffer', bodyLimit: limit },
    (_request, body, done) => done(null, body),
  )
  server.addHook('onRequest', async (request, reply) => {
    if (request.method !== 'POST') return
    const route = request.routeOptions.url ?? ''
    const place = { gone: false, held: false }
    reply.raw.once('close', () => {
      place.gone = true
      if (place.held) reading.delete(route)
    })
    callers.set(request, await admit(request))
    if (place.gone) throw new Refusal('body.invalid', 'the connection ended before the body')
    if (reading.has(route))
      throw new Refusal(busy, 'another upload is being received', {
        nextStep: 'send it again in a minute',
      })
    place.held = true
    reading.add(route)
  })
  return (request) => {
    const caller = callers.get(request)
    if (caller === undefined) throw new Error('a body was read of nobody')
    return caller
  }
}
