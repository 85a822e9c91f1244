/** A proxy behind TLS: it is asked for nothing, and told no login, before it has proven its name. */
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { printAddress, reach, readAnchor, readProxy, type Proxy } from '#tunnel'
import { httpProxy, httpsProxy } from '../support/proxy.ts'

const patiently = () => AbortSignal.timeout(60_000)
const proxyAt = (url: string, more: Partial<Proxy> = {}): Proxy => {
  const read = readProxy(url)
  if (typeof read === 'string') throw new Error(read)
  return { ...read, ...more }
}
const login = { user: 'press', password: 'secret' }

let echo: Server
beforeAll(async () => {
  echo = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
})
afterAll(() => void echo.close())
const there = () => ({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port })

test('carries what it is asked to, with a login, and not in the clear', async () => {
  await using proxy = await httpsProxy({ login: 'press:secret' })
  const { anchor, url } = proxy
  const socket = await reach(there(), proxyAt(url, { login, anchor }), patiently())
  expect(socket).toBeInstanceOf(TLSSocket)
  const large = Buffer.alloc(1_000_000, 'x')
  let came = 0
  const whole = new Promise<void>((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      came += chunk.length
      if (came === large.length) resolve()
    })
  })
  socket.write(large)
  await whole
  socket.destroy()
  expect(proxy.asked).toEqual([printAddress(there())])
})

const rows: [string, (anchor: string) => Partial<Proxy>, readonly string[], RegExp][] = [
  ['of an authority that nobody named', () => ({}), ['127.0.0.1'], /proxy_ca_file/],
  ['for another name', (anchor) => ({ anchor }), ['egress.example'], /has this name/],
]
test.for(rows)(
  'a certificate %s: the proxy hears neither question nor login',
  async ([, more, names, next]) => {
    await using proxy = await httpsProxy({ names })
    const to = proxyAt(proxy.url, { login, ...more(proxy.anchor) })
    await expect(reach(there(), to, patiently())).rejects.toMatchObject({
      code: 'proxy.untrusted',
      message: expect.stringContaining('127.0.0.1') as string,
      next: expect.stringMatching(next) as string,
    })
    expect(proxy.asked).toEqual([])
  },
)

test('another root of the same name is another authority', async () => {
  await using proxy = await httpsProxy()
  await using other = await httpsProxy()
  const to = proxyAt(proxy.url, { anchor: other.anchor })
  await expect(reach(there(), to, patiently())).rejects.toMatchObject({ code: 'proxy.untrusted' })
})

test('one that speaks no TLS is named, and told no login', async () => {
  await using plain = await httpProxy()
  const to = proxyAt(plain.url.replace('http:', 'https:'), { login })
  await expect(reach(there(), to, patiently())).rejects.toMatchObject({
    code: 'proxy.answer',
    next: expect.stringContaining('http://') as string,
  })
  expect(plain.asked).toEqual([])
})

test('one that says nothing is given up with the signal, and its connection ended', async () => {
  const open = new Set<Socket>()
  const came = Promise.withResolvers<void>()
  const mute = createServer((socket) => {
    open.add(socket)
    socket.on('error', () => {}).on('close', () => open.delete(socket))
    socket.once('data', () => came.resolve())
  }).listen(0, '127.0.0.1')
  await once(mute, 'listening')
  const giveUp = new AbortController()
  const { port } = mute.address() as AddressInfo
  const reaching = reach(there(), proxyAt(`https://127.0.0.1:${port}`), giveUp.signal)
  const refused = expect(reaching).rejects.toMatchObject({ code: 'proxy.answer' })
  await came.promise
  const closed = Promise.all([...open].map((socket) => once(socket, 'close')))
  giveUp.abort()
  await refused
  await closed
  mute.close()
})

test('what it refuses inside TLS is told as of any other', async () => {
  await using proxy = await httpsProxy({ says: 'HTTP/1.1 403 Forbidden' })
  const to = proxyAt(proxy.url, { anchor: proxy.anchor })
  await expect(reach(there(), to, patiently())).rejects.toMatchObject({ code: 'proxy.refused' })
})

test.for([
  ['nothing', ''],
  ['no certificate', 'hello'],
  ['half of one', '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'],
] as const)('a CA file with %s in it is none', ([, text]) => {
  expect(readAnchor(text)).toBeUndefined()
})
