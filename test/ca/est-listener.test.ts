/** EST at the gateway's own port: TLS, limits on time and size, broken connections. */
import { once } from 'node:events'
import { createPublicKey, constants } from 'node:crypto'
import { connect as connectTcp } from 'node:net'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EST_BODY_LIMIT } from '#ca'
import { channelBinding, createCsr, createRenewalCsr, encodeEstBody, parseCertsOnly } from '#est'
import { until } from '../support/patience.ts'
import { openSite, type Site } from './site.ts'
import { basic, newKey, pem, TENANT } from './support.ts'

let site: Site
beforeAll(async () => {
  site = await openSite({ limits: { bodyMs: 400, atOnce: 256 } })
})
afterAll(() => site[Symbol.asyncDispose]())

const names = { deviceId: 'press-07', tenant: TENANT }
const PATH = '/.well-known/est'

async function dial(options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connect({
    host: '127.0.0.1',
    port: site.port,
    servername: 'localhost',
    ca: site.root,
    ...options,
  })
  await once(socket, 'secureConnect')
  socket.on('error', () => undefined)
  return socket
}

interface Heard {
  readonly status: number
  readonly head: string
  readonly body: string
  readonly raw: string
}
/** Writes `text`, reads until the other side closes. */
async function speak(socket: TLSSocket, text: string): Promise<Heard> {
  const parts: Buffer[] = []
  socket.on('data', (part: Buffer) => parts.push(part))
  socket.write(text)
  if (!socket.closed) await once(socket, 'close')
  const raw = Buffer.concat(parts).toString('latin1')
  const at = raw.indexOf('\r\n\r\n')
  return { raw, head: raw.slice(0, at), body: raw.slice(at + 4), status: Number(raw.split(' ')[1]) }
}
const head = (line: string, headers: Record<string, string | number> = {}) =>
  [
    `${line} HTTP/1.1`,
    'host: localhost',
    'connection: close',
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    '',
    '',
  ].join('\r\n')
function enrolling(csr: Uint8Array, token: string, path = `${PATH}/simpleenroll`): string {
  const body = encodeEstBody(csr)
  const headers = {
    'content-type': 'application/pkcs10',
    'content-length': body.length,
    authorization: basic(token),
  }
  return head(`POST ${path}`, headers) + body
}
const bindingOf = (socket: TLSSocket): string =>
  Buffer.from(channelBinding(socket as never, 'client') ?? []).toString('base64')

test('2.1 every operation under /.well-known/est: served, off or unsupported as chosen', async () => {
  const rows = [
    ['GET', 'cacerts', 200],
    ['GET', 'csrattrs', 200],
    ['POST', 'simpleenroll', 401],
    ['POST', 'simplereenroll', 403],
    ['POST', 'serverkeygen', 404],
    ['POST', 'fullcmc', 501],
  ] as const
  const body = encodeEstBody(createCsr(newKey(), names))
  for (const [method, operation, status] of rows) {
    const more = { 'content-type': 'application/pkcs10', 'content-length': body.length }
    const text =
      method === 'GET'
        ? head(`GET ${PATH}/${operation}`)
        : head(`POST ${PATH}/${operation}`, more) + body
    expect((await speak(await dial(), text)).status, operation).toBe(status)
  }
})

test('2.3 another method: 405 with Allow', async () => {
  const rows = [
    ['POST', 'cacerts', 'GET'],
    ['PUT', 'csrattrs', 'GET'],
    ['GET', 'simpleenroll', 'POST'],
    ['DELETE', 'simplereenroll', 'POST'],
  ] as const
  for (const [method, operation, allow] of rows) {
    const heard = await speak(
      await dial(),
      head(`${method} ${PATH}/${operation}`, { 'content-length': 0 }),
    )
    expect([heard.status, /allow: (\w+)/i.exec(heard.head)?.[1]]).toEqual([405, allow])
  }
})

test('2.4 a chunked request is read; the answer has its length, a head below 1 KiB, and is no redirect', async () => {
  const token = await site.bench.token()
  const body = encodeEstBody(createCsr(newKey(), names))
  const chunks = body
    .match(/[^]{1,100}/g)!
    .map((part) => `${part.length.toString(16)}\r\n${part}\r\n`)
  const headers = {
    'content-type': 'application/pkcs10',
    'transfer-encoding': 'chunked',
    authorization: basic(token),
  }
  const text = `${head(`POST ${PATH}/simpleenroll`, headers)}${chunks.join('')}0\r\n\r\n`
  const heard = await speak(await dial(), text)
  expect(heard.status).toBe(200)
  expect(heard.head.length).toBeLessThan(1024)
  expect(heard.head).toMatch(new RegExp(`content-length: ${heard.body.length}\\b`, 'i'))
  expect(heard.head).not.toMatch(/^(?:transfer-encoding|location):/im)
})

test('2.5 errors are plain text on one line: code, sentence, next step, request id', async () => {
  const heard = await speak(await dial(), enrolling(createCsr(newKey(), names), 'spt_wrong'))
  expect(heard.head).toMatch(/content-type: text\/plain/i)
  expect(heard.body).toMatch(/^credential: [^\n]+; [^\n]+ \(request r_[0-9a-z]+\)\n$/)
})

test('2.6 TLS 1.1 and weak suites end in the handshake', async () => {
  for (const options of [
    { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' },
    { maxVersion: 'TLSv1.2', ciphers: 'aNULL:eNULL@SECLEVEL=0' },
    { maxVersion: 'TLSv1.2', ciphers: '3DES:DES@SECLEVEL=0' },
  ] as const)
    await expect((async () => dial(options))()).rejects.toThrow()
})

test('2.8 the server certificate is for the name dialled and leads to the root', async () => {
  const socket = await dial({ secureOptions: constants.SSL_OP_NO_TICKET })
  expect(socket.authorized).toBe(true)
  expect(socket.getPeerX509Certificate()?.checkHost('localhost', { subject: 'never' })).toBe(
    'localhost',
  )
  socket.destroy()
  const wrong = (async () => dial({ servername: 'elsewhere.example' }))()
  await expect(wrong).rejects.toThrow(/altnames/)
})

test('2.11 no credential: 401 with the challenge; a known one that is refused: 403 without', async () => {
  const body = encodeEstBody(createCsr(newKey(), names))
  const more = { 'content-type': 'application/pkcs10', 'content-length': body.length }
  const none = await speak(await dial(), head(`POST ${PATH}/simpleenroll`, more) + body)
  expect(none.status).toBe(401)
  expect(none.head).toMatch(/www-authenticate: Basic realm="est", charset="UTF-8"/i)
  const token = await site.bench.token()
  const used = await speak(await dial(), enrolling(createCsr(newKey(), names), token))
  expect(used.status).toBe(200)
  const other = await speak(await dial(), enrolling(createCsr(newKey(), names), token))
  expect(other.status).toBe(403)
  expect(other.head).not.toMatch(/www-authenticate/i)
})

test('2.12 cacerts and csrattrs ask nobody who they are', async () => {
  for (const operation of ['cacerts', 'csrattrs'])
    expect((await speak(await dial(), head(`GET ${PATH}/${operation}`))).status).toBe(200)
})

test.for(['TLSv1.2', 'TLSv1.3'] as const)(
  '2.15, 2.14, 2.17 over %s the binding of this connection passes and ends it, another’s does not',
  async (maxVersion) => {
    const token = await site.bench.token()
    const [socket, other] = [await dial({ maxVersion }), await dial({ maxVersion })]
    const stolen = createCsr(newKey(), names, bindingOf(other))
    const replayed = await speak(socket, enrolling(stolen, token))
    expect([replayed.status, replayed.body.split(':')[0]]).toEqual([400, 'binding.mismatch'])
    const body = encodeEstBody(createCsr(newKey(), names, bindingOf(other)))
    const headers = [
      'content-type: application/pkcs10',
      `content-length: ${body.length}`,
      `authorization: ${basic(token)}`,
    ]
    // No `connection: close` from us: the server ends it.
    const text = [
      `POST ${PATH}/simpleenroll HTTP/1.1`,
      'host: localhost',
      ...headers,
      '',
      body,
    ].join('\r\n')
    const own = await speak(other, text)
    expect(own.status).toBe(200)
    expect(own.head).toMatch(/connection: close/i)
  },
)

test('a renewal over a real handshake; then 18 months later, expired, on the same port', async () => {
  const key = newKey()
  const first = await speak(
    await dial(),
    enrolling(createCsr(key, names), await site.bench.token()),
  )
  const [leaf] = parseCertsOnly(first.body)
  const client = { key: String(key.export({ type: 'pkcs8', format: 'pem' })), cert: pem(leaf!) }
  const body = encodeEstBody(createRenewalCsr(key, leaf!))
  const more = { 'content-type': 'application/pkcs10', 'content-length': body.length }
  const text = head(`POST ${PATH}/simplereenroll`, more) + body
  const renewed = await speak(await dial(client), text)
  expect(renewed.status).toBe(200)
  expect(createPublicKey(key).asymmetricKeyType).toBe('ec')
})

test('a body of 16 KiB and one byte: 413, the connection ends; a head above 16 KiB: 431', async () => {
  const more = { 'content-type': 'application/pkcs10', 'content-length': EST_BODY_LIMIT + 1 }
  const long = await speak(
    await dial(),
    head(`POST ${PATH}/simpleenroll`, more) + 'A'.repeat(EST_BODY_LIMIT + 1),
  )
  expect([long.status, long.body.split(':')[0]]).toEqual([413, 'body.length'])
  const unsized = head(`POST ${PATH}/simpleenroll`, {
    'content-type': 'application/pkcs10',
    'transfer-encoding': 'chunked',
  })
  const chunk = `4000\r\n${'A'.repeat(0x4000)}\r\n`
  expect((await speak(await dial(), unsized + chunk + chunk)).status).toBe(413)
  const wide = await speak(
    await dial(),
    head(`GET ${PATH}/cacerts`, { 'x-padding': 'x'.repeat(20_000) }),
  )
  expect(wide.status).toBe(431)
})

const two = (value: string, other: string, name: string) => `${value}\r\n${name}: ${other}`
const ambiguous = [
  {
    name: 'two authorizations, one of them good',
    field: 'authorization',
    value: (token: string) => two(basic(token), basic('spt_no'), 'authorization'),
    status: 400,
    code: 'head.twice',
  },
  {
    name: 'two media types',
    field: 'content-type',
    value: () => two('application/pkcs10', 'text/plain', 'content-type'),
    status: 400,
    code: 'head.twice',
  },
  {
    name: 'a transfer coding beside chunked',
    field: 'transfer-encoding',
    value: () => 'gzip, chunked',
    status: 501,
    code: 'body.coding',
  },
  {
    name: 'a content coding',
    field: 'content-encoding',
    value: () => 'gzip',
    status: 415,
    code: 'body.coding',
  },
]
test.for(ambiguous)('$name: $status, and the token is not spent', async (row) => {
  const token = await site.bench.token()
  const body = encodeEstBody(createCsr(newKey(), names))
  const chunked = row.field === 'transfer-encoding'
  const headers = {
    'content-type': 'application/pkcs10',
    authorization: basic(token),
    ...(chunked ? {} : { 'content-length': body.length }),
    [row.field]: row.value(token),
  }
  const text = chunked ? `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n` : body
  const heard = await speak(await dial(), head(`POST ${PATH}/simpleenroll`, headers) + text)
  expect([heard.status, heard.body.split(':')[0]]).toEqual([row.status, row.code])
  expect((await speak(await dial(), enrolling(createCsr(newKey(), names), token))).status).toBe(200)
})

test('a body that drips: 408 at its deadline, whatever drips; nothing stays behind', async () => {
  const socket = await dial()
  const more = {
    'content-type': 'application/pkcs10',
    'content-length': 4_000,
    authorization: basic('spt_x'),
  }
  const dripping = setInterval(() => socket.write('A'), 50)
  // At this pace the body would be whole after three minutes, and the row would be over before.
  const heard = await speak(socket, head(`POST ${PATH}/simpleenroll`, more))
  clearInterval(dripping)
  expect([heard.status, heard.body.split(':')[0]]).toEqual([408, 'body.late'])
})

// Both wait for the ten seconds that a gateway gives whoever says nothing: they wait together.
test.concurrent('2.7 no session is resumed and nothing is renegotiated', async () => {
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const first = await dial({ maxVersion })
    const tickets: Buffer[] = []
    first.on('session', (ticket: Buffer) => tickets.push(ticket))
    const heard = await speak(first, head(`GET ${PATH}/cacerts`))
    expect(heard.status).toBe(200)
    const session = tickets[0] ?? first.getSession()
    const second = await dial({ maxVersion, ...(session === undefined ? {} : { session }) })
    expect(second.isSessionReused()).toBe(false)
    second.destroy()
  }
  const socket = await dial({ maxVersion: 'TLSv1.2' })
  const refused = await new Promise<boolean>((resolve) => {
    socket.on('close', () => resolve(true))
    socket.renegotiate({}, (error) => resolve(error !== null))
  })
  expect(refused).toBe(true)
  socket.destroy()
})

test.concurrent('a handshake that never comes and a head that drips are ended by the gateway, and others are served meanwhile', async () => {
  const before = await site.bench.state()
  const silent = connectTcp(site.port, '127.0.0.1')
  silent.on('error', () => undefined)
  const half = connectTcp(site.port, '127.0.0.1')
  half.on('error', () => undefined).write(Buffer.from('1603010200010001fc0303', 'hex'))
  const socket = await dial()
  const parts: Buffer[] = []
  socket.on('data', (part: Buffer) => parts.push(part))
  socket.write(`POST ${PATH}/simpleenroll HTTP/1.1\r\nhost: localhost\r\nx: `)
  const dripping = setInterval(() => socket.write('A'), 200)
  const ends = Promise.all([once(silent, 'close'), once(half, 'close'), once(socket, 'close')])
  const served = await speak(await dial(), head(`GET ${PATH}/cacerts`))
  expect(served.status).toBe(200)
  await ends
  clearInterval(dripping)
  expect(Buffer.concat(parts).toString('latin1')).toMatch(/^(?:HTTP\/1\.1 408 |$)/)
  expect(await site.bench.state()).toEqual(before)
})

test('what is no HTTP: 400, or the connection ends', async () => {
  for (const text of ['\0\0\0\0\r\n\r\n', 'GET\r\n\r\n', `GET ${PATH}/cacerts HTTP/9.9\r\n\r\n`]) {
    const heard = await speak(await dial(), text)
    expect(heard.raw === '' || heard.status === 400 || heard.status === 505).toBe(true)
  }
})

test('a connection cut in each phase leaves nothing, and the same request then goes through', async () => {
  const before = await site.bench.state()
  const token = await site.bench.token()
  const key = newKey()
  const text = enrolling(createCsr(key, names), token)
  const raw = connectTcp(site.port, '127.0.0.1')
  await once(raw, 'connect')
  raw.write(Buffer.from('160301', 'hex'))
  await sleep(20)
  raw.destroy()
  const body = text.indexOf('\r\n\r\n') + 4
  for (const cut of [0, 10, body - 3, body, body + 50, text.length - 1]) {
    const socket = await dial()
    if (cut > 0) socket.write(text.slice(0, cut))
    await sleep(20)
    socket.destroy()
  }
  await sleep(50)
  const tokens = await site.bench.store.listTokens(TENANT)
  expect(tokens[0]?.binding).toBeNull()
  expect((await site.bench.store.listCertificates(TENANT)).length).toBe(
    (before as { certificates: unknown[] }).certificates.length,
  )
  // Cut after the request: it was granted, and is granted again.
  const gone = await dial()
  gone.write(text)
  await sleep(100)
  gone.destroy()
  const heard = await speak(await dial(), enrolling(createCsr(key, names), token))
  expect(heard.status).toBe(200)
  const mine = (await site.bench.store.listCertificates(TENANT)).filter(
    (row) => row.tokenId === tokens[0]?.id,
  )
  expect(mine).toHaveLength(1)
})

test('2.17 requests sent without waiting for an answer: a binding authenticates the first, and the next is not begun', async () => {
  const key = newKey()
  const first = await speak(
    await dial(),
    enrolling(createCsr(key, names), await site.bench.token()),
  )
  const chain = parseCertsOnly(first.body)
  const cert = chain.map((each) => pem(each)).join('')
  const socket = await dial({ cert, key: key.export({ type: 'pkcs8', format: 'pem' }) })
  const challengePassword = bindingOf(socket)
  const renewing = (): string => {
    const body = encodeEstBody(createRenewalCsr(newKey(), chain[0]!, challengePassword))
    const headers = { 'content-type': 'application/pkcs10', 'content-length': body.length }
    return head(`POST ${PATH}/simplereenroll`, headers).replace('connection: close\r\n', '') + body
  }
  const rows = async () => (await site.bench.store.listCertificates(TENANT, {})).length
  const before = await rows()
  const { raw } = await speak(socket, renewing() + renewing() + renewing())
  expect(raw.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200'])
  expect(await rows()).toBe(before + 1)
})

test('requests sent without waiting for an answer, and nothing that ends the connection: each has its answer, in order', async () => {
  const plain = (path: string) => head(`GET ${PATH}/${path}`).replace('connection: close\r\n', '')
  const text = plain('cacerts') + plain('csrattrs') + plain('nothing') + head(`GET ${PATH}/cacerts`)
  const { raw } = await speak(await dial(), text)
  expect(raw.match(/HTTP\/1\.1 \d+/g)).toEqual(
    ['200', '200', '404', '200'].map((status) => `HTTP/1.1 ${status}`),
  )
})

test('200 requests at once with one token over 200 connections: one certificate, the same bytes', async () => {
  const token = await site.bench.token()
  const key = newKey()
  const csr = createCsr(key, names)
  const heard = await Promise.all(
    Array.from({ length: 200 }, async () => speak(await dial(), enrolling(csr, token))),
  )
  expect(new Set(heard.map(({ status }) => status))).toEqual(new Set([200]))
  expect(new Set(heard.map(({ body }) => body)).size).toBe(1)
})

test('more at once than one address may have: 429 with Retry-After; a flood: 429 by its own limit', async () => {
  await using own = await openSite({
    limits: { bodyMs: 10_000, atOnce: 3 },
    est: () => ({ requestsPerMinute: 5 }),
  })
  const port = { port: own.port, ca: own.root }
  const more = {
    'content-type': 'application/pkcs10',
    'content-length': 100,
    expect: '100-continue',
  }
  const open = await Promise.all(Array.from({ length: 3 }, async () => dial(port)))
  for (const socket of open) {
    socket.write(head(`POST ${PATH}/simpleenroll`, more))
    // It says so when the request is under way.
    expect(String(await once(socket, 'data'))).toMatch(/^HTTP\/1\.1 100 /)
  }
  const busy = await speak(await dial(port), head(`GET ${PATH}/cacerts`))
  expect([busy.status, /retry-after: \d+/i.test(busy.head)]).toEqual([429, true])
  for (const socket of open) socket.destroy()
  const free = async () => (await speak(await dial(port), head(`GET ${PATH}/cacerts`))).status
  await until('they are over', async () => (await free()) !== 429)
  const statuses: number[] = []
  for (let n = 0; n < 6; n++)
    statuses.push(
      (await speak(await dial(port), enrolling(createCsr(newKey(), names), 'x'))).status,
    )
  expect(statuses).toEqual([401, 401, 401, 401, 401, 429])
})

test('nothing of all this was a fault of ours', () => {
  expect(site.reported).toEqual([])
  expect(site.bench.failures).toEqual([])
})
