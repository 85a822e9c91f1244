/** Who takes notices, for tests: a program behind HTTPS, and a mail server that speaks as much SMTP as it takes. */
import { once } from 'node:events'
import { createServer as createHttps } from 'node:https'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { Pem } from '../../audit/receiver.ts'

export interface Posted {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

/** Answers each POST with the next of `statuses`, and then always with the last; with `answer`, where that is given. */
export async function webhookReceiver(
  { cert, key }: Pem,
  statuses: number[] = [204],
  answer: (body: string) => string = () => '',
) {
  const posted: Posted[] = []
  const server = createHttps({ cert, key }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString()
      posted.push({ headers: request.headers, body })
      const status = (statuses.length > 1 ? statuses.shift() : statuses[0]) ?? 204
      response.writeHead(status, { location: 'https://127.0.0.1:1/elsewhere' }).end(answer(body))
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    posted,
    statuses,
    url: `https://127.0.0.1:${port}/hook`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export interface Mail {
  readonly encrypted: boolean
  readonly login: string | null
  readonly to: readonly string[]
  readonly text: string
}

interface MailServer {
  /** False: it offers no STARTTLS. */
  readonly starttls?: boolean
  /** What it says to RCPT. */
  readonly rcpt?: string
}

export async function mailReceiver(
  { cert, key }: Pem,
  { starttls = true, rcpt = '250 ok' }: MailServer = {},
) {
  const mails: Mail[] = []
  /** Every line that came before TLS. */
  const open: string[] = []
  const sockets = new Set<Socket>()
  const converse = (socket: Socket, encrypted: boolean): void => {
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    let [login, to, text, data] = [null as string | null, [] as string[], '', false]
    let rest = ''
    const answers: [RegExp, (line: string) => string][] = [
      [
        /^EHLO/i,
        () => `250-me\r\n${starttls && !encrypted ? '250-STARTTLS\r\n' : ''}250 AUTH PLAIN`,
      ],
      [/^AUTH PLAIN /i, (line) => ((login = atob(line.slice(11))), '235 ok')],
      [/^MAIL/i, () => '250 ok'],
      [/^RCPT TO:<(.*)>/i, (line) => (to.push(/<(.*)>/.exec(line)?.[1] ?? ''), rcpt)],
      [/^DATA/i, () => ((data = true), '354 go on')],
      [/^QUIT/i, () => '221 bye'],
    ]
    const take = (line: string): void => {
      if (!encrypted) open.push(line)
      if (data && line !== '.') return void (text += `${line}\n`)
      if (data) {
        mails.push({ encrypted, login, to, text })
        ;[to, text, data] = [[], '', false]
        return void socket.write('250 taken\r\n')
      }
      if (/^STARTTLS/i.test(line) && starttls) {
        socket.removeAllListeners('data')
        socket.write('220 go\r\n')
        return converse(new TLSSocket(socket, { isServer: true, cert, key }), true)
      }
      const answer = answers.find(([pattern]) => pattern.test(line))
      socket.write(`${answer?.[1](line) ?? '500 what'}\r\n`)
    }
    socket.on('data', (chunk: Buffer) => {
      rest += chunk.toString()
      for (let at = rest.indexOf('\r\n'); at !== -1; at = rest.indexOf('\r\n')) {
        const line = rest.slice(0, at)
        rest = rest.slice(at + 2)
        take(line)
      }
    })
    if (!encrypted) socket.write('220 me\r\n')
  }
  const server = createServer((socket) => converse(socket, false)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    mails,
    open,
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A mail server that greets, and then answers the first line with a byte now and again, for as long as it is listened to. */
export async function drippingMailServer() {
  const [dripped, gone] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = createServer((socket) => {
    let dripping: NodeJS.Timeout | undefined
    // From the start: a client that hangs up before it has said anything is gone too.
    socket.once('close', () => (clearInterval(dripping), gone.resolve()))
    socket.on('error', () => socket.destroy())
    socket.write('220 me\r\n')
    socket.once('data', () => {
      dripping = setInterval(() => {
        socket.write('250-x\r\n')
        dripped.resolve()
      }, 5)
    })
    socket.resume()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    /** Resolves when the first of its answer is on the way. */
    dripped: dripped.promise,
    /** Resolves when its client has hung up. */
    gone: gone.promise,
    [Symbol.asyncDispose]: async () =>
      new Promise<void>((resolve) => server.close(() => resolve())),
  }
}
