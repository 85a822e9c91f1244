/** A gateway of three calls that take a key, over any store of answers: what is done is counted by whoever starts it. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Type } from 'typebox'
import type { AnswerStore } from '../../../gateway/answers.ts'
import { createApi } from '../../../gateway/listen/api.ts'
import { Rates } from '../../../gateway/listen/rates.ts'

export const KEY = 'a-key-of-16-and-more'

export interface Reply {
  readonly status: number
  readonly body: Record<string, unknown>
  readonly headers: Headers
}

export interface Things {
  readonly answers: AnswerStore
  /** Epoch milliseconds. */
  readonly now: () => number
  /** What a call does; gives how many were done. */
  readonly act: () => Promise<number>
  readonly report: (error: unknown) => void
}

/** Listens until `undo` ends; gives the address that `post` takes. */
export async function startThings(
  { answers, now, act, report }: Things,
  undo: AsyncDisposableStack,
): Promise<string> {
  const handler = undo.use(
    await createApi({
      version: '0',
      identity: {
        authenticate: async ({ headers }: { headers: Record<string, string> }) => ({
          id: `iss|${headers['x-who'] ?? 'vera'}`,
        }),
      } as never,
      answers,
      outOfScope: async () => undefined,
      rating: {
        rates: new Rates({ reads: 0, writes: 0, costly: 0, strangers: 0 }),
        flooded: () => {},
      },
      now,
      proven: () => {},
      report,
      routes(api) {
        for (const path of ['/api/v1/things', '/api/v1/invitations', '/api/v1/sessions/:id/cut'])
          api.server.post(
            path,
            { schema: { body: Type.Object({ a: Type.Optional(Type.Any()) }) } },
            async (request, reply) => {
              await api.caller(request)
              const done = await act()
              return reply.status(201).send({ done, secret: 'swordfish', of: request.body })
            },
          )
      },
    }),
  )
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  undo.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/v1`
}

export async function postTo(
  url: string,
  body: unknown = { a: 1 },
  { key = KEY, path = '/things', who = 'vera' } = {},
): Promise<Reply> {
  const answer = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: {
      authorization: 'DPoP x',
      'content-type': 'application/json',
      'x-who': who,
      ...(key === '' ? {} : { 'idempotency-key': key }),
    },
    body: JSON.stringify(body),
  })
  const { status, headers } = answer
  return { status, headers, body: (await answer.json()) as Record<string, unknown> }
}

export const code = ({ status, body }: Reply) => [status, body['code']]
