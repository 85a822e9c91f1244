/** Notices to a program: one signed POST each, and of the answer its status alone counts. */
import { signedPost, type PostTarget } from '../post.ts'
import type { Channel } from './dispatch.ts'

/** Takes anything; `send` rejects unless the receiver answers with 2xx in time. */
export function webhookChannel(options: PostTarget & { readonly name: string }): Channel {
  const post = signedPost(options)
  return {
    name: `webhook ${options.name}`,
    recipients: () => Promise.resolve(['']),
    async send({ id, message }) {
      const { text: _, ...facts } = message
      const key = Buffer.from(id).toString('base64url')
      const { status } = await post({ id, ...facts }, { 'idempotency-key': key })
      if (status < 200 || status > 299) throw new Error(`the receiver answered ${status}`)
    },
  }
}
