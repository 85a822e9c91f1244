/**
 * One signed POST to a program of the owner's: over TLS, to the one address of the configuration. No redirect is followed, no
 * other name asked for, and the answer is bounded in time and size.
 */
import { Agent, request } from 'node:https'
import { signWebhook } from '#audit'

export interface PostTarget {
  readonly url: string
  readonly ca: Buffer
  /** The name in its certificate, where that is not the one of the URL. */
  readonly servername?: string
  readonly secret: string
  /** Epoch milliseconds. */
  readonly now: () => number
  /** For the whole of a request. */
  readonly deadlineMs: number
}

export interface Posted {
  readonly status: number
  readonly body: Buffer
}

const ANSWER_BYTES = 4096

/**
 * Gives what sends JSON there and resolves with the answer, whatever its status. Rejects where there is none in time, it is
 * of more than 4 KiB, or whoever answers does not hold the name.
 */
export function signedPost(
  target: PostTarget,
): (value: object, headers?: Readonly<Record<string, string>>) => Promise<Posted> {
  const { url, ca, servername, secret, now, deadlineMs } = target
  const agent = new Agent({
    ca,
    minVersion: 'TLSv1.2',
    keepAlive: false,
    maxSockets: 4,
    ...(servername === undefined ? {} : { servername }),
  })
  return async (value, headers = {}) => {
    const body = Buffer.from(JSON.stringify(value))
    const seconds = String(Math.floor(now() / 1000))
    const signal = AbortSignal.timeout(deadlineMs)
    return await new Promise<Posted>((resolve, reject) => {
      const sent = {
        ...headers,
        'content-type': 'application/json',
        'content-length': body.length,
        'x-sallyport-timestamp': seconds,
        'x-sallyport-signature': signWebhook(secret, seconds, body),
      }
      const call = request(url, { method: 'POST', agent, headers: sent, signal }, (answer) => {
        const chunks: Buffer[] = []
        let length = 0
        answer.on('data', (chunk: Buffer) => {
          length += chunk.length
          if (length > ANSWER_BYTES) answer.destroy(new Error('the answer is too long'))
          else chunks.push(chunk)
        })
        answer.on('error', reject)
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks) }),
        )
      })
      call.on('error', reject)
      call.end(body)
    })
  }
}
