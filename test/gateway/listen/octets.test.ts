/** Uploads: what is read before anybody is known, what is parsed, and how many are held at once. */
import { once } from 'node:events'
import { request as ask, type ClientRequest, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Caller } from '../../../gateway/listen/authorize.ts'
import { answerErrors } from '../../../gateway/listen/api.ts'
import { takeOctets } from '../../../gateway/listen/octets.ts'
import { Refusal } from '../../../gateway/problem.ts'
import { until } from '../../support/patience.ts'

const CALLER = { subject: { id: 'iss|oda' } } as unknown as Caller
const LIMIT = 1024

let server: FastifyInstance
let admit: () => Promise<Caller>
let taken: unknown[]
let ended: number
let works: Promise<void> | undefined
beforeEach(async () => {
  admit = async () => CALLER
  taken = []
  ended = 0
  works = undefined
  server = Fastify()
  server.setErrorHandler((error: Error & { code?: string; statusCode?: number }, _request, reply) =>
    reply.status(error.statusCode ?? (error instanceof Refusal ? 429 : 500)).send(error.code),
  )
  server.addHook('onRequest', (_request, reply, next) => {
    reply.raw.once('close', () => ended++)
    next()
  })
  await server.register((scoped, _options, done) => {
    const types = ['application/octet-stream']
    const limits = { types, limit: LIMIT, busy: 'rollout.busy' } as const
    const callerOf = takeOctets(scoped, { ...limits, admit: () => admit() })
    for (const path of ['/one', '/other'])
      scoped.post(path, { bodyLimit: LIMIT }, async (request) => {
        taken.push([callerOf(request).subject.id, String(request.body)])
        await works
        return 'taken'
      })
    done()
  })
  await server.listen({ host: '127.0.0.1', port: 0 })
})
afterEach(async () => {
  await server.close()
})

/** An upload whose body is written by the row. */
function upload(
  path = '/one',
  type = 'application/octet-stream',
  length = 4,
  { port } = server.server.address() as Pick<AddressInfo, 'port'>,
): ClientRequest {
  const headers = { 'content-type': type, 'content-length': length }
  const request = ask({ host: '127.0.0.1', port, path, method: 'POST', headers, agent: false })
  request.on('error', () => undefined)
  request.flushHeaders()
  return request
}

async function answer(request: ClientRequest): Promise<[status: number, text: string]> {
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let text = ''
  for await (const chunk of response) text += String(chunk)
  request.destroy()
  return [response.statusCode ?? 0, text]
}

test('who is refused is answered before the body has come', async () => {
  admit = () => Promise.reject(Object.assign(new Error('who?'), { statusCode: 401, code: 'who' }))
  expect(await answer(upload())).toEqual([401, 'who'])
  expect(taken).toEqual([])
})

test('nothing but octets is parsed', async () => {
  for (const type of ['application/json', 'text/plain']) {
    const request = upload('/one', type)
    request.end('[[]]')
    expect(await answer(request)).toEqual([415, 'FST_ERR_CTP_INVALID_MEDIA_TYPE'])
  }
})

test('what is longer than allowed is refused before it has come', async () => {
  const [status] = await answer(upload('/one', 'application/octet-stream', LIMIT + 1))
  expect(status).toBe(413)
})

test('who sends too much is told how much the very call takes', async () => {
  const api = Fastify({ bodyLimit: 65_536 })
  answerErrors(api as never, { report: () => undefined })
  try {
    api.post('/short', async () => 'taken')
    api.post('/long', { bodyLimit: 16_777_216 }, async () => 'taken')
    await api.listen({ host: '127.0.0.1', port: 0 })
    for (const [path, most] of [
      ['/short', 65_536],
      ['/long', 16_777_216],
    ] as const) {
      const { port } = api.server.address() as AddressInfo
      const request = upload(path, 'application/json', most + 1, { port })
      const [status, text] = await answer(request)
      const problem = JSON.parse(text) as { code: string; detail: string }
      expect([status, problem.code]).toEqual([413, 'body.too_large'])
      expect(problem.detail).toBe(`the body of this call has at most ${most} bytes`)
    }
  } finally {
    await api.close()
  }
})

test('a second upload is refused while one is read or worked on, and not one to another call', async () => {
  const work = Promise.withResolvers<void>()
  works = work.promise
  const admitted = Promise.withResolvers<void>()
  admit = async () => {
    admitted.resolve()
    return CALLER
  }
  const first = upload()
  const answered = answer(first)
  await admitted.promise
  expect(await answer(upload())).toEqual([429, 'rollout.busy'])
  first.end('1234')
  await until('the first is worked on', () => taken.length === 1)
  expect(await answer(upload())).toEqual([429, 'rollout.busy'])
  work.resolve()
  const other = upload('/other')
  other.end('5678')
  expect(await answer(other)).toEqual([200, 'taken'])
  expect(await answered).toEqual([200, 'taken'])
  await until('all have ended', () => ended === 4)
  const next = upload()
  next.end('9012')
  expect(await answer(next)).toEqual([200, 'taken'])
  expect(taken.at(-1)).toEqual(['iss|oda', '9012'])
})

test('one that breaks off gives its place back, whenever it does', async () => {
  const asked = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const early = Promise.withResolvers<Caller>()
  admit = () => {
    asked[0]?.resolve()
    return early.promise
  }
  const first = upload()
  await asked[0]?.promise
  first.destroy()
  await until('the first has ended', () => ended === 1)
  early.resolve(CALLER)
  admit = async () => {
    asked[1]?.resolve()
    return CALLER
  }
  const second = upload()
  await asked[1]?.promise
  second.destroy()
  await until('the second has ended', () => ended === 2)
  const third = upload()
  third.end('1234')
  expect(await answer(third)).toEqual([200, 'taken'])
})
