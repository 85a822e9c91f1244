/** What a balancer says of a connection, and who then counts as its source. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { Admission } from '../../../gateway/listen/admission.ts'
import { readAnnouncement, restOf } from '../../../gateway/listen/balancer.ts'
import { createEdge, type Edge } from '../../../gateway/listen/edge.ts'
import { isIn, networksOf } from '../../../gateway/networks.ts'
import { soon, until } from '../../support/node.ts'
import { selfSigned } from '../../transport/certificate.ts'

const SIGNATURE = '0d0a0d0a000d0a515549540a'
const FOUR = `${SIGNATURE}2111000c cb007107 7f000001 d431 20fb`
const SIX = `${SIGNATURE}21210024 20010db8000000000000000000000007 00000000000000000000000000000001 d431 20fb`
const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex')

describe('a header', () => {
  test.for([
    { name: 'of IPv4', hex: FOUR, said: { address: '203.0.113.7', port: 54_321 } },
    { name: 'of IPv6', hex: SIX, said: { address: '2001:db8::7', port: 54_321 } },
    {
      name: 'of IPv4 within IPv6',
      hex: `${SIGNATURE}21210024 00000000000000000000ffffcb007107 00000000000000000000000000000001 d431 20fb`,
      said: { address: '203.0.113.7', port: 54_321 },
    },
    {
      name: 'with more behind the addresses, as balancers add it',
      hex: `${SIGNATURE}21110013 cb007107 7f000001 d431 20fb 04000461626364`,
      said: { address: '203.0.113.7', port: 54_321 },
    },
    { name: 'of the balancer itself', hex: `${SIGNATURE}20000000`, said: 'own' },
    {
      name: 'of the balancer itself, with addresses',
      hex: FOUR.replace('2111', '2011'),
      said: 'own',
    },
    { name: 'of no known command', hex: FOUR.replace('2111', '2211'), said: 'broken' },
    { name: 'of datagrams', hex: FOUR.replace('2111', '2112'), said: 'broken' },
    { name: 'of a path', hex: FOUR.replace('2111', '2131'), said: 'broken' },
    { name: 'of no family', hex: FOUR.replace('2111', '2100'), said: 'broken' },
    { name: 'of IPv6 in the length of IPv4', hex: FOUR.replace('2111', '2121'), said: 'broken' },
    {
      name: 'of IPv4 without its port',
      hex: `${SIGNATURE}21110008 cb007107 7f000001`,
      said: 'broken',
    },
  ])('$name', ({ hex, said }) => {
    const all = bytes(hex)
    expect(restOf(all.subarray(0, 16))).toBe(all.length - 16)
    expect(readAnnouncement(all.subarray(0, 16), all.subarray(16))).toEqual(said)
  })

  test.for([
    { name: 'version 1', head: Buffer.from('PROXY TCP4 203.0') },
    { name: 'a version there is not', head: bytes(`${SIGNATURE}3111000c`) },
    { name: 'one octet of the signature changed', head: bytes(`0e${SIGNATURE.slice(2)}2111000c`) },
    { name: 'more than 1,024 octets', head: bytes(`${SIGNATURE}21110401`) },
    { name: 'one that is cut', head: bytes(SIGNATURE) },
  ])('is none: $name', ({ head }) => {
    expect(restOf(head)).toBeUndefined()
  })
})

describe('networks', () => {
  test('addresses and networks of both families', () => {
    const list = networksOf(['192.0.2.7', '10.1.0.0/16', '2001:db8::/32'])
    const inside = ['192.0.2.7', '10.1.255.1', '2001:db8:1::1']
    const outside = ['192.0.2.8', '10.2.0.1', '::1', '']
    expect([...inside, ...outside].filter((address) => isIn(list, address))).toEqual(inside)
  })
  test.for(['localhost', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '::/129', '', '10.0.0.0/-1'])(
    'none: "%s"',
    (text) => {
      expect(() => networksOf([text])).toThrow(RangeError)
    },
  )
})

/** Remembers who came. */
class Watched extends Admission {
  readonly came: string[] = []
  override enter(address: string, now: number) {
    this.came.push(address)
    return super.enter(address, now)
  }
}

describe('the port behind a balancer', () => {
  const admission = new Watched({ perSource: 0, open: 2, strangers: 0, strangersOpen: 0 }, 0)
  const faults: string[] = []
  let edge: Edge
  let port: number
  let ca: string
  beforeAll(async () => {
    const { key, cert } = await selfSigned()
    ca = cert
    edge = createEdge({
      certificate: { chain: cert, key, clientAuthorities: [] },
      balancers: networksOf(['127.0.0.1']),
      admission,
      onTunnel: (socket) => socket.end(`${socket.remoteAddress} ${socket.remotePort}`),
      onRequest: (request, response) => void response.end(request.socket.remoteAddress),
      onUpgrade: (_request, socket) => socket.destroy(),
      onFault: (code, from) => faults.push(`${code} ${from}`),
    })
    port = (await edge.listen('0.0.0.0', 0)).port
  })
  afterAll(async () => {
    await edge[Symbol.asyncDispose]()
  })

  async function tcp(localAddress = '127.0.0.1'): Promise<Socket> {
    const socket = connect({ port, host: '127.0.0.1', localAddress, noDelay: true })
    socket.on('error', () => {})
    onTestFinished(() => void socket.destroy())
    await once(socket, 'connect')
    return socket
  }
  /** What the port says of whoever speaks `sallyport/1` over `socket`. */
  async function sourceOver(socket: Socket): Promise<string> {
    const secure = connectTls({
      socket,
      ca,
      host: '127.0.0.1',
      ALPNProtocols: ['sallyport/1'],
    })
    secure.on('error', () => {})
    return await soon('the port says whose the connection is', text(secure))
  }
  async function gone(socket: Socket): Promise<void> {
    const closed = socket.closed || new Promise((done) => socket.once('close', done))
    await soon('the connection is reset', Promise.resolve(closed))
  }

  test.for([
    { name: 'of somebody on IPv4', hex: FOUR, source: '203.0.113.7 54321' },
    { name: 'of somebody on IPv6', hex: SIX, source: '2001:db8::7 54321' },
  ])('a connection $name has their address', async ({ hex, source }) => {
    const socket = await tcp()
    socket.write(bytes(hex))
    expect(await sourceOver(socket)).toBe(source)
  })

  test('a header that comes octet by octet is one header', async () => {
    const socket = await tcp()
    for (const octet of bytes(FOUR))
      await new Promise((sent) => socket.write(Buffer.of(octet), sent))
    expect(await sourceOver(socket)).toBe('203.0.113.7 54321')
  })

  test('two connections of one port, to two addresses listened on, are two', async () => {
    const first = await tcp()
    first.write(bytes(FOUR))
    const second = connect({
      port,
      host: '127.0.0.2',
      localAddress: '127.0.0.1',
      localPort: first.localPort,
    })
    second.on('error', () => {})
    onTestFinished(() => void second.destroy())
    await once(second, 'connect')
    second.write(bytes(SIX))
    expect(second.localPort).toBe(first.localPort)
    expect(await sourceOver(second)).toBe('2001:db8::7 54321')
    expect(await sourceOver(first)).toBe('203.0.113.7 54321')
  })

  test('a request has the address too', async () => {
    const socket = await tcp()
    socket.write(bytes(SIX))
    const secure = connectTls({ socket, ca, host: '127.0.0.1' })
    secure.write('GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')
    expect(await soon('the answer', text(secure))).toMatch(/\r\n\r\n.*2001:db8::7/s)
  })

  test('what the balancer asks for itself is its own', async () => {
    const socket = await tcp()
    const { localPort } = socket
    socket.write(bytes(`${SIGNATURE}20000000`))
    expect(await sourceOver(socket)).toBe(`127.0.0.1 ${localPort}`)
  })

  test('a connection of the balancer without a header is reset, and told once', async () => {
    const before = faults.length
    const socket = await tcp()
    const over = gone(socket)
    socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await over
    expect(faults.slice(before)).toEqual(['balancer.header 127.0.0.1'])
  })

  test('nobody else is believed: a header from elsewhere is no TLS', async () => {
    const socket = await tcp('127.0.0.2')
    const over = gone(socket)
    socket.write(bytes(FOUR))
    await over
    expect(faults.at(-1)).toMatch(/^ERR_SSL_\w+ 127\.0\.0\.2$/)
  })

  test('limits count who connected to the balancer, not the balancer', async () => {
    const held = async (last: number): Promise<Socket> => {
      const before = admission.came.length
      const socket = await tcp()
      socket.write(bytes(FOUR.replace('cb007107', `c633640${last}`)))
      await until('its header is read', () => Promise.resolve(admission.came.length > before))
      return socket
    }
    const [one, two, other] = [await held(1), await held(1), await held(2)]
    const third = await held(1)
    await gone(third)
    expect(faults.at(-1)).toBe('source.connections 198.51.100.1')
    expect([one, two, other].map(({ destroyed }) => destroyed)).toEqual([false, false, false])
    expect(await sourceOver(other)).toBe('198.51.100.2 54321')
  })
})
