/** Notices to people by mail, over TLS or to this very machine: one message to one address, plain text. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { createTransport } from 'nodemailer'
import type { Channel } from './dispatch.ts'
import { KINDS, type Notice } from './notice.ts'

interface MailOptions {
  readonly host: string
  readonly port: number
  /** `starttls`: refused where the server offers none; `implicit`: from the first byte; `none`: loopback alone. */
  readonly tls: 'starttls' | 'implicit' | 'none'
  readonly from: string
  readonly ca?: Buffer
  readonly servername?: string
  readonly login?: { readonly user: string; readonly pass: string }
  /** Who is told of every alarm, beside those who may approve. */
  readonly alarms: readonly string[]
  /** Addresses of those who may do what the notice asks for, `most` of them. */
  readonly approversOf: (notice: Notice, most: number) => Promise<readonly string[]>
  /** How long one delivery may take from the first packet to the last answer. Default 60,000 ms. */
  readonly deadlineMs?: number
}

const WAIT_MS = 10_000
/** The waits between two bytes are bounded each; a server that drips keeps every one of them and never ends. */
const DEADLINE_MS = 60_000
const MOST_RECIPIENTS = 50

/** What went wrong, without what was said to the server: a login is part of that. */
function faultOf(error: unknown): Error {
  const { code, responseCode } = error as { code?: unknown; responseCode?: unknown }
  const said = [code, responseCode].filter(
    (one) => typeof one === 'string' || typeof one === 'number',
  )
  return new Error(
    `the mail server did not take it${said.length === 0 ? '' : `: ${said.join(' ')}`}`,
  )
}

/**
 * Mail by one server. `send` rejects where the server does not take the message, cannot be reached over TLS, or has not
 * taken it by the deadline.
 */
export function mailChannel(options: MailOptions): Channel {
  const { from, alarms, approversOf, deadlineMs = DEADLINE_MS } = options
  const domain = from.slice(from.lastIndexOf('@') + 1)
  return {
    name: 'mail',
    async recipients(notice) {
      const to = KINDS[notice.kind]
      const { requester_email: holder } = notice.grant
      if (to === 'holder') return holder === null ? [] : [holder]
      const named = to === 'alarm' ? alarms : []
      const approvers = await approversOf(notice, MOST_RECIPIENTS)
      return [...new Set([...named, ...approvers])].slice(0, MOST_RECIPIENTS)
    },
    async send({ id, recipient, message }) {
      const name = createHash('sha256').update(id).digest('hex').slice(0, 32)
      await within(deadlineMs, options, async (socket) =>
        transportOver(socket, options).sendMail({
          from: { name: 'Sallyport', address: from },
          // As an address and not as text: what stands in it names no second one.
          to: { name: '', address: recipient },
          subject: message.subject,
          text: message.text,
          messageId: `<${name}@${domain}>`,
          headers: { 'Auto-Submitted': 'auto-generated' },
          disableFileAccess: true,
          disableUrlAccess: true,
        }),
      )
    },
  }
}

/** Does `work` over one connection of its own, which is gone afterwards, and at the deadline whatever is under way. */
async function within(
  deadlineMs: number,
  { host, port }: Pick<MailOptions, 'host' | 'port'>,
  work: (socket: Socket) => Promise<unknown>,
): Promise<void> {
  const socket = connect({ host, port })
  // What happens to it is heard by whoever waits; at the deadline nobody may be left who does.
  socket.on('error', () => {})
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    late.reject(new Error(`the mail server did not take it within ${deadlineMs / 1000} s`))
    socket.destroy()
  }, deadlineMs)
  const sending = once(socket, 'connect', { signal: AbortSignal.timeout(WAIT_MS) })
    .then(async () => work(socket))
    .catch((error: unknown) => {
      throw faultOf(socket.connecting ? { code: 'ETIMEDOUT' } : error)
    })
  try {
    await Promise.race([late.promise, sending])
  } finally {
    clearTimeout(timer)
    socket.destroy()
  }
}

function transportOver(socket: Socket, options: MailOptions): ReturnType<typeof createTransport> {
  const { host, port, tls, ca, servername = host, login } = options
  return createTransport({
    host,
    port,
    secure: tls === 'implicit',
    requireTLS: tls === 'starttls',
    ignoreTLS: tls === 'none',
    tls: { minVersion: 'TLSv1.2', servername, ...(ca === undefined ? {} : { ca }) },
    ...(login === undefined ? {} : { auth: { ...login } }),
    getSocket: (_options: unknown, callback: (error: null, own: object) => void) =>
      callback(null, { connection: socket }),
    greetingTimeout: WAIT_MS,
    socketTimeout: 2 * WAIT_MS,
    disableFileAccess: true,
    disableUrlAccess: true,
  })
}
