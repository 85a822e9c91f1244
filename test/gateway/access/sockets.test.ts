/** A session in a page: who gets a socket, what passes in it, and that it is cut like any connection. */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFinished,
  test,
  vi,
} from 'vitest'
import { WebSocket, type ClientOptions, type RawData } from 'ws'
import type { OpenedSession, Problem, SessionSocket } from '#api'
import type { TunnelStream } from '#tunnel'
import { Openings } from '../../../gateway/access/openings.ts'
import {
  grantFor,
  openSession,
  soon,
  startNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { noChromium, openChromium } from '../../support/chromium.ts'
import { oblige } from '../../support/policy.ts'
import { attach, echo, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'

const DEVICE = 'press-07'
const KINDS = { shell: 'spawn', vnc: 'tcp', hmi: 'http', feed: 'udp' }

let node: TestNode
let vendor: Person
let other: Person
let identity: DeviceIdentity
let agent: FakeAgent

beforeAll(async () => {
  node = await startNode()
  identity = await node.device(
    DEVICE,
    Object.fromEntries(
      Object.entries(KINDS).map(([name, kind]) => [name, { ...expecting(), kind }]),
    ),
  )
  ;[vendor, other, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    attach(node, identity, {
      listeners: Object.fromEntries(
        Object.keys(KINDS).map((name) => [name, seen(PLC, 'listener')]),
      ),
    }),
  ])
  for (const process of Object.keys(KINDS))
    await grantFor(vendor, node.admin, { device: DEVICE, process })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(() => {
  agent.target = echo
  agent.observed = seen(PLC)
})
afterEach(() => until('no stream is left on the device', () => agent.open() === 0))

/** A session that ends with its test. */
async function open(process: string): Promise<OpenedSession> {
  const session = await openSession(vendor, DEVICE, process)
  onTestFinished(async () => void (await vendor.call('POST', `/sessions/${session.id}/end`)))
  return session
}
const offered = async ({ id }: { id: string }, who = vendor): Promise<SessionSocket> =>
  await who.ask<SessionSocket>('POST', `/sessions/${id}/socket`)

/** One socket as a page has it: what came, and how it closed. */
class Page {
  readonly socket: WebSocket
  readonly texts: Record<string, unknown>[] = []
  readonly closed: Promise<readonly [number, string]>
  bytes = Buffer.alloc(0)

  constructor({ url, protocols }: Pick<SessionSocket, 'url' | 'protocols'>, origin = node.origin) {
    const options: ClientOptions & { readonly servername: string } = {
      ca: node.anchor,
      servername: 'localhost',
      headers: { host: new URL(url).host, ...(origin === '' ? {} : { origin }) },
    }
    this.socket = new WebSocket(url.replace('localhost', '127.0.0.1'), [...protocols], options)
    const closed = Promise.withResolvers<readonly [number, string]>()
    this.closed = closed.promise
    this.socket.on('error', () => {})
    this.socket.on('close', (code, reason) => closed.resolve([code, reason.toString()]))
    this.socket.on('message', (data: RawData, binary) => {
      if (binary) this.bytes = Buffer.concat([this.bytes, data as Buffer])
      else this.texts.push(JSON.parse((data as Buffer).toString()) as Record<string, unknown>)
    })
    onTestFinished(() => this.socket.terminate())
  }
  async open(): Promise<this> {
    if (this.socket.readyState === WebSocket.CONNECTING)
      await soon('the socket opens', once(this.socket, 'open'))
    return this
  }
  async says(what: string, check: (page: this) => boolean): Promise<this> {
    await until(`${what}; came: ${this.bytes.toString('latin1').slice(0, 200)}`, () => check(this))
    return this
  }
  async gone(): Promise<readonly [number, string]> {
    return await soon('the socket closes', this.closed)
  }
  /** Status and code of the answer that was no handshake. */
  async refused(): Promise<readonly [number, string]> {
    const { promise, resolve } = Promise.withResolvers<IncomingMessage>()
    this.socket.on('unexpected-response', (_request, answer) => resolve(answer))
    const answer = await soon('a refusal', promise)
    let text = ''
    for await (const chunk of answer.setEncoding('utf8')) text += String(chunk)
    return [answer.statusCode ?? 0, text === '' ? '' : (JSON.parse(text) as Problem).code]
  }
}

const inPage = async (process: string): Promise<{ page: Page; session: OpenedSession }> => {
  const session = await open(process)
  return { page: await new Page(await offered(session)).open(), session }
}

describe('who gets one', () => {
  test('its holder, with a ticket that no address holds and that is good once', async () => {
    const session = await open('vnc')
    const socket = await offered(session)
    const [speech, ticket] = socket.protocols
    expect([speech, ticket]).toEqual([
      'sallyport.stream.1',
      expect.stringMatching(/^ticket\..{43}$/),
    ])
    expect(socket.url).toBe(`wss://localhost:${node.port}/api/v1/sessions/${session.id}/socket`)
    const page = await new Page(socket).open()
    expect(page.socket.protocol).toBe('sallyport.stream.1')
    expect(await new Page(socket).refused()).toEqual([401, 'socket.ticket'])
    page.socket.close(1000)
    expect(node.events().some((event) => JSON.stringify(event).includes(ticket!.slice(7)))).toBe(
      false,
    )
  })

  test('nobody else: another person of the same company is told that there is no such session', async () => {
    const session = await open('vnc')
    for (const who of [other, node.admin]) {
      const answer = await who.call<Problem>('POST', `/sessions/${session.id}/socket`)
      expect([answer.status, answer.body.code]).toEqual([404, 'session.unknown'])
    }
  })

  test('not of a session that has ended', async () => {
    const session = await open('vnc')
    const socket = await offered(session)
    await vendor.call('POST', `/sessions/${session.id}/end`)
    const answer = await vendor.call<Problem>('POST', `/sessions/${session.id}/socket`)
    expect([answer.status, answer.body.code]).toEqual([409, 'session.ended'])
    expect(await new Page(socket).refused()).toEqual([401, 'socket.ticket'])
  })

  test.for(['hmi', 'feed'])('not of %s, which is no connection', async (process) => {
    const session = await open(process)
    const answer = await vendor.call<Problem>('POST', `/sessions/${session.id}/socket`)
    expect([answer.status, answer.body.code]).toEqual([409, 'socket.kind'])
  })

  const bent: readonly [
    string,
    (socket: SessionSocket, another: string) => Page,
    number,
    string,
  ][] = [
    [
      'no ticket',
      ({ url, protocols: [speech = ''] }) => new Page({ url, protocols: [speech] }),
      401,
      'socket.ticket',
    ],
    [
      'a guessed one',
      ({ url, protocols: [speech = ''] }) =>
        new Page({ url, protocols: [speech, `ticket.${'A'.repeat(43)}`] }),
      401,
      'socket.ticket',
    ],
    [
      'no way to speak',
      ({ url, protocols: [, ticket = ''] }) => new Page({ url, protocols: [ticket] }),
      401,
      'socket.ticket',
    ],
    [
      'the address of another session',
      ({ url, protocols }, id) => new Page({ url: url.replace(/s_\w+/, id), protocols }),
      401,
      'socket.ticket',
    ],
    [
      'a page of another site',
      (socket) => new Page(socket, 'https://evil.example'),
      403,
      'app.foreign',
    ],
    [
      'a page of a web app behind a device',
      (socket) => new Page(socket, `https://hmi--press-07.apps.localhost:${node.port}`),
      403,
      'app.foreign',
    ],
    ['a sandboxed page', (socket) => new Page(socket, 'null'), 403, 'app.foreign'],
    [
      'a window of no size',
      ({ url, protocols }) => new Page({ url: `${url}?cols=0`, protocols }),
      400,
      'socket.window',
    ],
    [
      'a window of text',
      ({ url, protocols }) => new Page({ url: `${url}?rows=many`, protocols }),
      400,
      'socket.window',
    ],
  ]
  test.for(bent)('refused: %s', async ([, bend, status, code]) => {
    const [session, another] = [await open('shell'), await open('vnc')]
    expect(await bend(await offered(session), another.id).refused()).toEqual([status, code])
  })

  test('a program that is no page shows the ticket alone', async () => {
    const page = await new Page(await offered(await open('vnc')), '').open()
    page.socket.close(1000)
    expect(await page.gone()).toEqual([1000, ''])
  })

  test('a ticket is good for a minute, and the oldest of too many goes first', async () => {
    const { Tickets, TICKET_MS } = await import('../../../gateway/access/tickets.ts')
    const tickets = new Tickets()
    const first = tickets.issue('s_1', 0)
    expect(tickets.redeem(tickets.issue('s_2', 0), TICKET_MS)).toBeUndefined()
    expect(tickets.redeem(tickets.issue('s_2', 0), TICKET_MS - 1)).toBe('s_2')
    for (let at = 0; at < 10_000; at++) tickets.issue('s_3', 1)
    expect(tickets.redeem(first, 1)).toBeUndefined()
    const last = tickets.issue('s_3', 1)
    tickets.forget('s_3')
    expect(tickets.redeem(last, 1)).toBeUndefined()
  })
})

describe('bytes for a viewer', () => {
  test('pass both ways whole, however they are cut, and nothing else is said', async () => {
    const { page, session } = await inPage('vnc')
    const sent = Buffer.alloc(700_000, 'RFB 003.008\n')
    for (let at = 0; at < sent.length; at += 100_000)
      page.socket.send(sent.subarray(at, at + 100_000))
    await page.says('all of it', ({ bytes }) => bytes.length === sent.length)
    expect(page.bytes.equals(sent)).toBe(true)
    expect(page.texts).toEqual([])
    const { bytes_in: bytesIn, bytes_out: bytesOut } = await vendor.ask<{
      bytes_in: number
      bytes_out: number
    }>('GET', `/sessions/${session.id}`)
    expect([bytesIn, bytesOut]).toEqual([sent.length, sent.length])
    page.socket.close(1000)
  })

  test('what the device says last arrives before the end', async () => {
    agent.target = (stream) => {
      stream.onEnd = () => undefined
      stream.write(Buffer.alloc(200_000, 'x'))
      stream.end()
    }
    const { page } = await inPage('vnc')
    expect(await page.gone()).toEqual([1000, 'done'])
    expect(page.bytes.length).toBe(200_000)
  })

  test('a page that does not read holds its device up, not the gateway', async () => {
    let taken = 0
    agent.target = (stream) => {
      stream.onData = () => undefined
      const pour = (): void => {
        while (taken < 512 * 1024 * 1024 && stream.write(Buffer.alloc(64 * 1024)))
          taken += 64 * 1024
      }
      stream.onDrain = pour
      pour()
    }
    const session = await open('vnc')
    const page = new Page(await offered(session))
    page.socket.on('open', () => page.socket.pause())
    await page.open()
    // It stops at what the way between them holds, long before all it has.
    let before = -1
    await until('nothing more is taken', () => {
      const still = taken > 0 && taken === before
      before = taken
      return still
    })
    expect(taken).toBeLessThan(256 * 1024 * 1024)
    page.socket.terminate()
  })

  test('a device that does not read holds its page up', async () => {
    const streams: TunnelStream[] = []
    let came = 0
    agent.target = (stream) => {
      streams.push(stream)
      stream.onData = (chunk) => (came += chunk.length)
    }
    const { page } = await inPage('vnc')
    const chunk = Buffer.alloc(64 * 1024)
    for (let at = 0; at < 512; at++) page.socket.send(chunk)
    await until('the page is held up', () => came > 0 && page.socket.bufferedAmount > 1024 * 1024)
    expect(came).toBeLessThan(16 * 1024 * 1024)
    // It reads on, and more comes.
    const held = came
    const [stream] = streams
    stream!.onData = (bytes) => {
      came += bytes.length
      stream!.consumed(bytes.length)
    }
    stream!.consumed(held)
    await until('more of it', () => came > held)
    page.socket.terminate()
  })

  test.for<[string, (socket: WebSocket) => void, readonly [number, string]]>([
    ['a text message', (socket) => socket.send('{"t":"winsize"}'), [1003, 'client.text']],
    ['a message too long', (socket) => socket.send(Buffer.alloc(300_000)), [1009, '']],
    [
      'a frame that is none',
      (socket) =>
        (socket as unknown as { _socket: NodeJS.WritableStream })._socket.write(
          Buffer.of(0xff, 0xff),
        ),
      [1002, ''],
    ],
  ])('%s ends it', async ([, send, closed]) => {
    const { page } = await inPage('vnc')
    send(page.socket)
    expect(await page.gone()).toEqual(closed)
  })
})

describe('a terminal', () => {
  test('has the window it named, is told when it opens, changes size, and hears how the program ended', async () => {
    const heard: unknown[] = []
    agent.target = (stream) => {
      stream.onSignal = (payload) => heard.push(JSON.parse(Buffer.from(payload).toString()))
      stream.onData = (chunk) => {
        stream.consumed(chunk.length)
        stream.write(Buffer.from(`> ${Buffer.from(chunk).toString()}`))
        if (!Buffer.from(chunk).includes('exit')) return
        stream.signal(Buffer.from('{"t":"exit","code":7}'))
        stream.end()
      }
      stream.onEnd = () => undefined
    }
    const session = await open('shell')
    const socket = await offered(session)
    const page = await new Page({
      ...socket,
      url: `${socket.url}?cols=132&rows=43&term=xterm`,
    }).open()
    await page.says('that it is open', ({ texts }) => texts.length === 1)
    expect(page.texts).toEqual([
      { t: 'open', v: 1, remaining_ms: expect.any(Number) as number, terminal: true },
    ])
    expect(agent.opened.at(-1)).toMatchObject({ terminal: { cols: 132, rows: 43, term: 'xterm' } })
    page.socket.send('{"t":"winsize","cols":80,"rows":25,"more":"x"}')
    await until('the new size', () => heard.length === 1)
    expect(heard).toEqual([{ t: 'winsize', rows: 25, cols: 80 }])
    for (const nonsense of [
      'no json',
      '{"t":"winsize","cols":0,"rows":1}',
      '{"t":"proceed"}',
      '[]',
      '7',
    ])
      page.socket.send(nonsense)
    page.socket.send(Buffer.from('ls\n'))
    await page.says('an answer', ({ bytes }) => bytes.includes('> ls'))
    expect(heard).toHaveLength(1)
    page.socket.send(Buffer.from('exit\n'))
    expect(await page.gone()).toEqual([1000, 'done'])
    expect(page.texts.at(-1)).toEqual({ t: 'exit', code: 7 })
  })

  test('the end of what is typed reaches a program that reads to it', async () => {
    agent.target = (stream) => {
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.onEnd = () => {
        stream.write(Buffer.from('so many lines'))
        stream.end()
      }
    }
    const { page } = await inPage('shell')
    page.socket.send('{"t":"end"}')
    page.socket.send(Buffer.from('too late'))
    expect(await page.gone()).toEqual([1000, 'done'])
    expect(page.bytes.toString()).toBe('so many lines')
  })

  test('a page that is closed takes the program with it', async () => {
    const why = Promise.withResolvers<string>()
    agent.target = (stream) => {
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.onClose = ({ code }) => why.resolve(code)
    }
    const { page } = await inPage('shell')
    await page.says('that it is open', ({ texts }) => texts.length === 1)
    page.socket.close(1000)
    expect(await soon('the program hears it', why.promise)).toBe('client.gone')
  })

  test('another program answers: the page is told the code and what to do', async () => {
    agent.observed = seen('/tmp/other')
    const { page } = await inPage('shell')
    expect(await page.gone()).toEqual([1008, 'process.mismatch'])
    expect(page.texts).toEqual([
      expect.objectContaining({
        t: 'refused',
        code: 'process.mismatch',
        decision_id: expect.any(String) as string,
      }),
    ])
  })

  test('a session that is cut: the page hears who said so, and nothing passes any more', async () => {
    const { page, session } = await inPage('shell')
    await page.says('that it is open', ({ texts }) => texts.length === 1)
    await node.admin.ask('POST', `/sessions/${session.id}/cut`, { reason: 'wrong press' })
    expect(await page.gone()).toEqual([1008, 'session.killed'])
    expect(page.texts.at(-1)).toMatchObject({
      t: 'ending',
      code: 'session.killed',
      msg: 'wrong press',
    })
  })

  test('a session that is cut while its page reads nothing: the page loses what was on its way', async () => {
    agent.target = (stream) => {
      const pour = (): void => {
        while (stream.write(Buffer.alloc(64 * 1024)));
      }
      stream.onDrain = pour
      pour()
    }
    const session = await open('shell')
    const page = new Page(await offered(session))
    page.socket.on('open', () => page.socket.pause())
    await page.open()
    await until('it is behind', () => agent.open() === 1)
    await node.admin.ask('POST', `/sessions/${session.id}/cut`, { reason: 'wrong press' })
    page.socket.resume()
    expect((await page.gone())[0]).not.toBe(1000)
  })

  test('so many at once as policy allows, and the next is told', async () => {
    oblige({ max_streams: 1 })
    const { page, session } = await inPage('shell')
    await page.says('that it is open', ({ texts }) => texts.length === 1)
    const second = await new Page(await offered(session)).open()
    expect(await second.gone()).toEqual([1008, 'session.limit'])
    page.socket.close()
  })

  test('where as many of their connections wait for their turn as may, the next is told', async () => {
    const session = await open('shell')
    const page = new Page(await offered(session))
    const turn = vi.spyOn(Openings.prototype, 'turn').mockResolvedValue('full')
    onTestFinished(() => turn.mockRestore())
    await page.open()
    expect(await page.gone()).toEqual([1008, 'session.limit'])
    expect(page.texts).toMatchObject([{ t: 'refused', code: 'session.limit' }])
  })
})

test.skipIf(noChromium !== undefined)(
  `from a page of the gateway's own, in a browser${noChromium === undefined ? '' : ` (${noChromium})`}`,
  async () => {
    await using chromium = await openChromium(node.origin)
    const tab = await chromium.tab()
    await tab.open(`${node.origin}/oidc/passkey`)
    const { url, protocols } = await offered(await open('shell'))
    const said = await tab.run<string>(`new Promise((resolve) => {
      const socket = new WebSocket(${JSON.stringify(url)}, ${JSON.stringify(protocols)})
      socket.binaryType = 'arraybuffer'
      socket.onclose = ({ code, reason }) => resolve('closed ' + code + ' ' + reason)
      socket.onmessage = ({ data }) => {
        if (typeof data === 'string') socket.send(new TextEncoder().encode('from a page'))
        else resolve(new TextDecoder().decode(data))
      }
    })`)
    expect(said).toBe('from a page')
  },
)
