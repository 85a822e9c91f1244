/**
 * A plant's syslog receiver, as far as proof needs one: RFC 5424 messages over TLS with octet counting
 * (RFC 5425), client certificate required, each written to a file as one JSON line, in order of arrival.
 * A process of its own.
 *
 *     node receiver.ts PORT FILES_JSON OUT
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { createServer } from 'node:tls'
import { parseFrames } from '#audit'
import type { ReceiverFiles } from './certificates.ts'

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

/** RFC 5424 section 6: PRI VERSION TIMESTAMP HOST APP PROCID MSGID SD MSG. */
const MESSAGE = /^<\d{1,3}>1 \S+ \S+ \S+ \S+ (\S+) \[sallyport@\d+ ((?:[^\]\\]|\\.)*)\](?: ([\s\S]*))?$/

function line(frame: Uint8Array): string {
  const text = Buffer.from(frame).toString('utf8')
  const [, msgid = '', data = '', body = ''] = MESSAGE.exec(text) ?? []
  const parameter = (name: string): string => new RegExp(`(?:^| )${name}="((?:[^"\\\\]|\\\\.)*)"`).exec(data)?.[1] ?? ''
  const whole = !body.includes('"is_truncated":true')
  const received = {
    idx: Number(parameter('idx')),
    uid: parameter('uid'),
    leaf: parameter('leaf'),
    msgid,
    body: whole ? body.replace(/^\ufeff/, '') : null,
  }
  return `${JSON.stringify(received)}\n`
}

server.listen(Number(port), '127.0.0.1', () => console.log(JSON.stringify({ msg: 'listening', port: Number(port) })))
process.on('SIGTERM', () => process.exit(0))
