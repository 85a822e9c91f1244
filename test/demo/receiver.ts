/**
 * A plant's syslog receiver, as far as proof needs one: RFC 5424 messages over TLS with octet counting
 * (RFC 5425), client certificate required, each written to a file as one JSON line, in order of arrival.
 * A process of its own.
 *
 *     node receiver.ts PORT FILES_JSON OUT
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { createServer } from 'node:tls'
import { parseFrames, parseMessage } from '#audit'
import type { ReceiverFiles } from './certificates.ts'

/** One line of OUT. */
export interface Received {
  readonly idx: number | null
  readonly uid: string
  /** The leaf hash that the sender states, 64 hex digits. */
  readonly leaf: string
  readonly msgid: string
  /** The leaf's bytes as text; null where a stub was sent for one too long. */
  readonly body: string | null
}

const [port = '0', filesPath = '', out = ''] = process.argv.slice(2)
const files = JSON.parse(readFileSync(filesPath, 'utf8')) as ReceiverFiles

const server = createServer(
  {
    ca: readFileSync(files.ca),
    cert: readFileSync(files.serverCert),
    key: readFileSync(files.serverKey),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
  },
  (socket) => {
    let held: Buffer = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      held = Buffer.concat([held, chunk])
      const parsed = parseFrames(held)
      held = Buffer.from(parsed.rest)
      if (parsed.frames.length > 0) appendFileSync(out, parsed.frames.map(line).join(''))
    })
    socket.on('error', () => socket.destroy())
  },
)

/** One line for one message; `idx` is null for what is not an event: the signed heads sent in between. */
function line(frame: Uint8Array): string {
  const { id, elements, body } = parseMessage(frame)
  const own = Object.entries(elements).find(([name]) => name.startsWith('sallyport@'))?.[1] ?? {}
  const text = Buffer.from(body).toString('utf8')
  const received: Received = {
    idx: own['idx'] === undefined ? null : Number(own['idx']),
    uid: own['uid'] ?? '',
    leaf: own['leaf'] ?? '',
    msgid: id,
    body: text.includes('"is_truncated":true') ? null : text,
  }
  return `${JSON.stringify(received)}\n`
}

server.listen(Number(port), '127.0.0.1', () =>
  console.log(JSON.stringify({ msg: 'listening', port: Number(port) })),
)
process.on('SIGTERM', () => process.exit(0))
