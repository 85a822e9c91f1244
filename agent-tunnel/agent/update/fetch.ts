/** The octets of an update, from a gateway that has proven itself, by the name that they must have: their SHA-256. */
import { hash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { once } from 'node:events'
import type { Update } from '#update'
import { dialGateway, type Dial } from '../connect.ts'

/** 16 MiB at a little more than 128 kbit/s, below which the gateway gives up. */
const LONGEST_MS = 1_000_000

/** Without a word of the gateway on when to come again, and the longest that it is believed. */
const USUAL_WAIT_S = 10
const LONGEST_WAIT_S = 600

/** The gateway serves others: nothing is wrong, and it says when to come again. */
export class GatewayBusy extends Error {
  override readonly name = 'GatewayBusy'
  readonly waitMs: number
  /** `retryAfter`: the header of its answer; what is no number of seconds counts as none. */
  constructor(retryAfter?: string) {
    super('the gateway serves other devices')
    const said = /^\d{1,9}$/.test(retryAfter ?? '') ? Number(retryAfter) : USUAL_WAIT_S
    this.waitMs = Math.min(Math.max(said, 1), LONGEST_WAIT_S) * 1000
  }
}

/**
 * Fetches what `update` names. Rejects with AgentError as `dialGateway` does, with GatewayBusy, and with an Error for an answer that is
 * not those octets; with the signal's reason when aborted.
 */
export async function fetchUpdate(
  { sha256, size }: Update,
  dial: Omit<Dial, 'use' | 'signal'>,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(LONGEST_MS)])
  const { socket } = await dialGateway({ ...dial, use: 'est', signal: limit })
  try {
    // Loaded when it is needed: an agent that waits does without.
    const { request: httpRequest } = await import('node:http')
    const request = httpRequest({
      createConnection: () => socket,
      path: `/agent/${sha256}`,
      headers: { host: dial.config.gateway.host },
      signal: limit,
    })
    request.end()
    const [response] = (await once(request, 'response', { signal: limit })) as [IncomingMessage]
    if (response.statusCode === 503) throw new GatewayBusy(response.headers['retry-after'])
    if (response.statusCode !== 200)
      throw new Error(`the gateway answered ${response.statusCode ?? 0} for /agent/${sha256}`)
    return await whole(response, size, sha256)
  } finally {
    socket.destroy()
  }
}

async function whole(response: IncomingMessage, size: number, sha256: string): Promise<Uint8Array> {
  const bytes = Buffer.alloc(size)
  let filled = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    if (filled + chunk.length > size) throw new Error('what came is longer than what was signed')
    filled += chunk.copy(bytes, filled)
  }
  if (filled < size) throw new Error('what came is shorter than what was signed')
  if (hash('sha256', bytes, 'hex') !== sha256) throw new Error('what came is not what was signed')
  return bytes
}
