/**
 * Notices to a program: one POST each, over TLS to the one address of the configuration, signed with the time. No redirect
 * is followed, no other name asked for, and of the answer only its status counts.
 */
import { Agent, request } from 'node:https'
import { signWebhook } from '#audit'
import type { Channel } from './dispatch.ts'

interface WebhookOptions {
  readonly name: string
  readonly url: string
  readonly ca: Buffer
  readonly secret: string
  /** The name in its certificate, where that is not the one of the URL. */
  readonly servername?: string
  /** Epoch milliseconds. */
  readonly now: () => number
  /** Default 10,000 ms for the whole of a request. */
  readonly deadlineMs?: number
}

/** Takes anything; `send` rejects unless the receiver answers with 2xx in time. */
export function webhookChannel(options: WebhookOptions): Channel {
  const { name, url, ca, secret, servername, now, deadlineMs = 10_000 } = options
  const agent = new Agent({
    ca,
    minVersion: 'TLSv1.2',
    keepAlive: false,
    maxSockets: 1,
    ...(servername === undefined ? {} : { servername }),
  })
  return {
    name: `webhook ${name}`,
    recipients: () => Promise.resolve(['']),
    async send({ id, message }) {
      const { text: _, ...facts } = message
      const body = Buffer.from(JSON.stringify({ id, ...facts }))
      const seconds = String(Math.floor(now() / 1000))
      const headers = {
        'content-type': 'application/json',
        'content-length': body.length,
        'idempotency-key': Buffer.from(id).toString('base64url'),
        'x-sallyport-timestamp': seconds,
        'x-sallyport-signature': signWebhook(secret, seconds, body),
      }
      const signal = AbortSignal.timeout(deadlineMs)
      const status = await new Promise<number>((resolve, reject) => {
        const call = request(url, { method: 'POST', agent, headers, signal }, (answer) => {
          resolve(answer.statusCode ?? 0)
          answer.destroy()
        })
        call.on('error', reject)
        call.end(body)
      })
      if (status < 200 || status > 299) throw new Error(`the receiver answered ${status}`)
    },
  }
}
