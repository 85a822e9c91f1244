/**
 * Peers that ignore the rules, each as fast as it can until it is told to stop: strangers from the
 * network, a device and a vendor whose credentials are good. Raw octets, no session of ours in between.
 */
import { createHmac } from 'node:crypto'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { encode, TYPE } from '#mux'

export interface Place {
  readonly port: number
  /** PEM of the root. */
  readonly anchor: string
  /** The loopback address to come from. */
  readonly from: string
  /** Key and certificate of a device that may have a tunnel. */
  readonly device?: { readonly key: string; readonly cert: string } | undefined
  /** A session that is open. */
  readonly session?: { readonly id: string; readonly secret: string } | undefined
}

export interface Attack {
  readonly name: string
  readonly who: 'stranger' | 'device' | 'vendor'
  /** What the gateway says of it, in GOAWAY or in its log; null where there is nothing to say. */
  readonly code: RegExp | null
  /** Said once for a source and a minute, so perhaps already beside an earlier attack. */
  readonly once?: boolean
  /** Runs one attacker until `stop` aborts; gives the GOAWAY codes it heard. */
  readonly run: (place: Place, stop: AbortSignal, heard: (code: string) => void) => Promise<void>
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const hello = (role: 'agent' | 'client') =>
  encode({
    type: 'hello',
    minVersion: 1,
    maxVersion: 1,
    role,
    limits: { maxStreams: 4096, initialWindow: 262_144, maxFrame: 262_144, maxWindow: 16_777_216 },
    features: 0,
    epoch: Date.now(),
    instance: 'abuse',
    rest: new Uint8Array(0),
  })

/** A frame as it is told to be. */
function raw(type: number, stream: number, payload: Uint8Array, length = payload.length) {
  const bytes = Buffer.alloc(8 + payload.length)
  bytes[0] = type
  bytes.writeUIntBE(length, 1, 3)
  bytes.writeUInt32BE(stream, 4)
  bytes.set(payload, 8)
  return bytes
}

function tcp({ port, from }: Place): Socket {
  const socket = connectTcp({ port, host: '127.0.0.1', localAddress: from })
  socket.on('error', () => {})
  return socket
}

async function connected(socket: Socket, event: 'connect' | 'secureConnect'): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  socket.once(event, () => resolve(true))
  socket.once('close', () => resolve(false))
  return await promise
}

async function closed(socket: Socket): Promise<void> {
  if (socket.destroyed) return
  socket.setMaxListeners(0)
  await new Promise((resolve) => socket.once('close', resolve))
}

async function tls(place: Place, more: ConnectionOptions = {}): Promise<TLSSocket | undefined> {
  const socket = connectTls({
    socket: tcp(place),
    servername: 'localhost',
    ca: place.anchor,
    ALPNProtocols: ['sallyport/1'],
    ...more,
  })
  socket.on('error', () => {})
  return (await connected(socket, 'secureConnect')) ? socket : undefined
}

/** What a GOAWAY says, if one is among the octets that came. */
function goawayIn(octets: Buffer): string | undefined {
  for (let at = 0; at + 8 <= octets.length;) {
    const length = octets.readUIntBE(at + 1, 3)
    const body = octets.subarray(at + 8, at + 8 + length)
    if (octets[at] === TYPE.goaway && body.length > 11) {
      const size = body[10] ?? 0
      return body.subarray(11, 11 + size).toString()
    }
    at += 8 + length
  }
  return undefined
}

/** Connects again and again; `fill` does with each connection what it likes until that is gone. */
function again(
  open: (place: Place) => Promise<Socket | undefined>,
  fill: (socket: Socket, place: Place, stop: AbortSignal) => Promise<void> | void,
): Attack['run'] {
  return async (place, stop, heard) => {
    while (!stop.aborted) {
      const socket = await open(place)
      if (socket === undefined) {
        await turn()
        continue
      }
      const parts: Buffer[] = []
      socket.on('data', (part: Buffer) => parts.length < 64 && parts.push(part))
      const abort = () => socket.destroy()
      stop.addEventListener('abort', abort, { once: true })
      await fill(socket, place, stop)
      socket.destroy()
      await closed(socket)
      stop.removeEventListener('abort', abort)
      const code = goawayIn(Buffer.concat(parts))
      if (code !== undefined) heard(code)
    }
  }
}

/** Many connections at once, each kept as long as the gateway lets it. */
function many(count: number, one: Attack['run']): Attack['run'] {
  return async (place, stop, heard) => {
    await Promise.all(Array.from({ length: count }, async () => one(place, stop, heard)))
  }
}

/** Writes `chunk` for as long as the connection takes it. */
async function pour(socket: Socket, chunk: (round: number) => Uint8Array): Promise<void> {
  for (let round = 0; !socket.destroyed && socket.writable; round++) {
    if (socket.write(chunk(round))) {
      if (round % 4 === 3) await turn()
      continue
    }
    await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed(socket)])
  }
}

const device = async (place: Place) => tls(place, { ...place.device })
const stranger = async (place: Place) => tls(place)
const web = async (place: Place) => tls(place, { ALPNProtocols: ['http/1.1'] })
const plain = async (place: Place) => {
  const socket = tcp(place)
  return (await connected(socket, 'connect')) ? socket : undefined
}

const greeting = Buffer.from(
  JSON.stringify({
    v: 1,
    agent: { version: '0.1.0', version_int: 1000, now_ms: 0 },
    tls: { version: 'TLSv1.3', cipher: 'TLS_AES_256_GCM_SHA384', group: null },
    targets: [],
  }),
)

/** As a device: HELLO, the control stream, then `chunk` without end. */
function asDevice(chunk: (round: number) => Uint8Array): Attack['run'] {
  return again(device, async (socket) => {
    socket.write(hello('agent'))
    socket.write(raw(TYPE.open, 1, Buffer.concat([Buffer.of(5), greeting])))
    // Nothing but HELLO and OPEN may come before the answers are here.
    await Promise.race([new Promise((resolve) => setTimeout(resolve, 150)), closed(socket)])
    await pour(socket, chunk)
    await Promise.race([closed(socket), pause(1000)])
  })
}

/** As a vendor: HELLO, one stream of the session, then `chunk` without end. */
function asVendor(
  chunk: (round: number, open: (id: number) => Buffer) => Uint8Array,
): Attack['run'] {
  return again(stranger, async (socket, { session }) => {
    const exporter = (socket as TLSSocket).exportKeyingMaterial(
      32,
      'EXPORTER-sallyport-session',
      Buffer.alloc(0),
    )
    const secret = Buffer.from(session?.secret ?? '', 'base64url')
    const proof = createHmac('sha256', secret).update(exporter).digest('base64url')
    const metadata = Buffer.from(JSON.stringify({ v: 1, session: session?.id ?? '', proof }))
    const open = (id: number) => raw(TYPE.open, id, Buffer.concat([Buffer.of(1), metadata]))
    socket.write(hello('client'))
    socket.write(open(1))
    await Promise.race([new Promise((resolve) => setTimeout(resolve, 150)), closed(socket)])
    await pour(socket, (round) => chunk(round, open))
    await Promise.race([closed(socket), pause(1000)])
  })
}

const repeated = (frame: Uint8Array, times: number): Buffer =>
  Buffer.concat(Array.from({ length: times }, () => frame))
const constant = (bytes: Uint8Array) => () => bytes
const window = Buffer.of(0, 0, 0, 1)
const code = Buffer.concat([Buffer.of(3), Buffer.from('x.y')])

/** OPENs of the rising ids of a round. */
const opens = (make: (id: number) => Uint8Array, each: number) => (round: number) =>
  Buffer.concat(Array.from({ length: each }, (_, at) => make(3 + 2 * (round * each + at))))

export const attacks: readonly Attack[] = [
  {
    name: 'garbage instead of TLS',
    who: 'stranger',
    code: /ERR_SSL/,
    once: true,
    run: many(
      4,
      again(plain, (socket) => pour(socket, constant(Buffer.alloc(16_384, 0xa5)))),
    ),
  },
  {
    name: 'HTTP without TLS',
    who: 'stranger',
    code: /ERR_SSL_HTTP_REQUEST/,
    once: true,
    run: many(
      4,
      again(plain, (socket) => pour(socket, constant(Buffer.from('GET / HTTP/1.1\r\n\r\n')))),
    ),
  },
  {
    name: 'handshakes of another ALPN',
    who: 'stranger',
    code: /ALPN|NO_APPLICATION_PROTOCOL/,
    once: true,
    run: many(
      4,
      again(
        (place) => tls(place, { ALPNProtocols: ['h2'] }),
        () => {},
      ),
    ),
  },
  {
    name: 'handshakes and nothing else',
    who: 'stranger',
    code: null,
    run: many(
      8,
      again(stranger, () => {}),
    ),
  },
  {
    name: 'HTTP in place of HELLO',
    who: 'stranger',
    code: /hello\.http/,
    once: true,
    run: many(
      4,
      again(stranger, async (socket) => {
        socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        await closed(socket)
      }),
    ),
  },
  {
    name: 'a HELLO without end',
    who: 'stranger',
    code: /frame\.length/,
    once: true,
    run: many(
      4,
      again(stranger, (socket) =>
        pour(socket, constant(raw(TYPE.hello, 0, Buffer.alloc(8192), 2 ** 24 - 1))),
      ),
    ),
  },
  {
    name: 'two hundred that say nothing',
    who: 'stranger',
    code: /hello\.timeout|ERR_TLS_HANDSHAKE_TIMEOUT/,
    once: true,
    run: many(
      200,
      again(async (place) => (Math.random() < 0.5 ? plain(place) : stranger(place)), closed),
    ),
  },
  {
    name: 'slow heads of HTTP',
    who: 'stranger',
    code: null,
    run: many(
      200,
      again(web, async (socket) => {
        socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n')
        for (let at = 0; !socket.destroyed; at++) {
          socket.write(`X-${at}: y\r\n`)
          await Promise.race([pause(500), closed(socket)])
        }
      }),
    ),
  },
  {
    name: 'WebSockets that are none',
    who: 'stranger',
    code: /hello\.(?:missing|http)|carrier\.failed/,
    once: true,
    run: many(
      4,
      again(web, async (socket) => {
        socket.write(
          'GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sallyport.1\r\n\r\n',
        )
        socket.write(
          Buffer.concat([Buffer.from([0x82, 0x88, 0, 0, 0, 0]), Buffer.from('GET / HT')]),
        )
        await closed(socket)
      }),
    ),
  },
  {
    name: 'a device that only connects and leaves',
    who: 'device',
    code: /device\.pace/,
    run: many(
      2,
      again(device, async (socket) => {
        socket.write(hello('agent'))
        socket.write(raw(TYPE.open, 1, Buffer.concat([Buffer.of(5), greeting])))
        await Promise.race([new Promise((resolve) => socket.once('data', resolve)), closed(socket)])
        await Promise.race([pause(20), closed(socket)])
      }),
    ),
  },
  {
    name: 'OPEN and RESET, rapidly',
    who: 'device',
    code: /rate\.(?:reset|open)|backlog/,
    once: true,
    run: asDevice(
      opens(
        (id) => Buffer.concat([raw(TYPE.open, id, Buffer.of(1)), raw(TYPE.reset, id, code)]),
        200,
      ),
    ),
  },
  {
    name: 'OPENs',
    who: 'device',
    code: /rate\.open/,
    once: true,
    run: asDevice(opens((id) => raw(TYPE.open, id, Buffer.of(1)), 500)),
  },
  {
    name: 'PINGs',
    who: 'device',
    code: /rate\.ping/,
    once: true,
    run: asDevice(constant(repeated(raw(TYPE.ping, 0, Buffer.alloc(8)), 500))),
  },
  {
    name: 'WINDOWs',
    who: 'device',
    code: /rate\.empty|window\.overflow/,
    once: true,
    run: asDevice(constant(repeated(raw(TYPE.window, 1, window), 1000))),
  },
  {
    name: 'SIGNALs',
    who: 'device',
    code: /rate\.signal/,
    once: true,
    run: asDevice(constant(repeated(raw(TYPE.signal, 1, Buffer.alloc(0)), 1000))),
  },
  {
    name: 'GOAWAYs',
    who: 'device',
    code: /rate\.signal/,
    once: true,
    run: asDevice(
      constant(
        repeated(raw(TYPE.goaway, 0, Buffer.concat([Buffer.alloc(10), code, Buffer.of(0)])), 1000),
      ),
    ),
  },
  {
    name: 'empty DATA',
    who: 'device',
    code: /data\.empty/,
    once: true,
    run: asDevice(constant(repeated(raw(TYPE.data, 1, Buffer.alloc(0)), 1000))),
  },
  {
    name: 'a frame too long',
    who: 'device',
    code: /frame\.length/,
    once: true,
    run: asDevice(constant(raw(TYPE.data, 1, Buffer.alloc(65_536), 2 ** 24 - 1))),
  },
  {
    name: 'extensions',
    who: 'device',
    code: /rate\.extension/,
    once: true,
    run: asDevice(constant(repeated(raw(0x80, 0, Buffer.alloc(0)), 1000))),
  },
  {
    name: 'reports without end',
    who: 'device',
    code: /control\.rate|window\.exceeded|rate\./,
    once: true,
    run: asDevice(constant(raw(TYPE.data, 1, repeated(Buffer.from('{"type":"ping"}\n'), 1000)))),
  },
  {
    name: 'OPENs of a session',
    who: 'vendor',
    code: /rate\.open/,
    run: asVendor((round, open) => opens(open, 100)(round)),
  },
  {
    name: 'single octets',
    who: 'vendor',
    code: /rate\.|window\.exceeded/,
    run: asVendor(constant(repeated(raw(TYPE.data, 1, Buffer.of(1)), 4000))),
  },
  {
    name: 'PINGs that are not read',
    who: 'vendor',
    code: /rate\.ping/,
    once: true,
    run: again(stranger, async (socket) => {
      socket.pause()
      socket.write(hello('client'))
      await pour(socket, constant(repeated(raw(TYPE.ping, 0, Buffer.alloc(8)), 500)))
    }),
  },
]
