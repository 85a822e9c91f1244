/** Sessions that must be recorded, on a real node: not opened where they cannot be, ended where they cannot go on. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { AddedAuditor, Auditor, OpenedSession, Problem, Recording, Session } from '#api'
import {
  compare,
  findParts,
  identityOf,
  openSealed,
  readCast,
  readRecording,
  readTrack,
  type Identity,
} from '#audit'
import {
  grantFor,
  openSession,
  soon,
  startNode,
  until,
  type LoggedEvent,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { run } from '../../cli/run.ts'
import { answer, oblige } from '../../support/policy.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  Line,
  PLC,
  refusalOf,
  seen,
  toPort,
  type FakeAgent,
} from '../../support/tunnels.ts'

const KINDS = { plc: 'tcp', registers: 'modbus', shell: 'ssh', hmi: 'http', term: 'spawn' } as const
const anna = identityOf(randomBytes(32))
const bert = identityOf(randomBytes(32))

let node: TestNode
let vendor: Person
let auditor: Person
let agent: FakeAgent
let hmi: Server

beforeAll(async () => {
  node = await startNode()
  hmi = createServer((request, response) => {
    request.resume().once('end', () => {
      response.writeHead(request.url?.startsWith('/login') === true ? 303 : 200, {
        'content-type': 'text/html; charset=utf-8',
        'set-cookie': 'app=topsecret',
      })
      response.end('<p>hello')
    })
  })
  hmi.listen(0, '127.0.0.1')
  await once(hmi, 'listening')
  const processes = Object.entries(KINDS)
  const identity = await node.device(
    'press-07',
    Object.fromEntries(processes.map(([name, kind]) => [name, expecting(PLC, kind)])),
  )
  const listeners = Object.fromEntries(processes.map(([name]) => [name, seen(PLC, 'listener')]))
  ;[vendor, auditor, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('aude', { party: 'staff', roles: ['auditor'] }),
    attach(node, identity, { listeners }),
  ])
  for (const [process] of processes)
    await grantFor(vendor, node.admin, { device: 'press-07', process })
})
afterAll(async () => {
  hmi.closeAllConnections()
  hmi.close()
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(() => {
  agent.target = echo
})

async function enrol(name: string, { recipient, secret }: Identity): Promise<void> {
  const { test: sealed } = await node.admin.ask<AddedAuditor>('POST', '/auditors', {
    name,
    recipient: recipient.text,
  })
  const { plain } = openSealed(Buffer.from(sealed, 'base64'), [{ recipient, secret }])
  await node.admin.ask<Auditor>('POST', `/auditors/${name}/confirm`, {
    secret: Buffer.from(plain).toString(),
  })
}

async function open(process: keyof typeof KINDS): Promise<OpenedSession> {
  const session = await openSession(vendor, 'press-07', process)
  onTestFinished(async () => void (await vendor.call('POST', `/sessions/${session.id}/end`)))
  return session
}
const end = async ({ id }: OpenedSession) => vendor.ask<Session>('POST', `/sessions/${id}/end`)
const directory = () => join(node.data, 'recordings')

async function events(session: OpenedSession): Promise<LoggedEvent[]> {
  const all = node.events()
  return all.filter(({ event }) => {
    const { metadata } = event as { metadata?: { correlation_uid?: string } }
    return metadata?.correlation_uid === session.id
  })
}
const own = ({ event }: LoggedEvent) =>
  (event as { unmapped?: { sallyport?: Record<string, unknown> } }).unmapped?.sallyport ?? {}

/** The sealed parts as the API gives them, put together by `who`, and checked against the log on the way. */
async function read(session: OpenedSession, who: Identity): Promise<Buffer> {
  const recording = await auditor.ask<Recording>('GET', `/recordings/${session.id}`)
  const told = await events(session)
  const closing = told.find(({ code }) => code === 'recording.end')
  if (closing === undefined || recording.end === null) throw new Error('it has no end')
  const logged = {
    parts: recording.parts,
    end: {
      idx: closing.idx,
      parts: Number(own(closing)['parts']),
      root: String(own(closing)['root']),
    },
  }
  expect(compare(logged, await findParts(directory(), session.id))).toEqual([])
  expect(told.filter(({ code }) => code === 'recording.part').map(({ idx }) => idx)).toEqual(
    recording.parts.map(({ idx }) => idx),
  )
  const sealed = recording.parts.map((part) => ({
    ...part,
    sealed: readFileSync(
      join(directory(), session.id, `001-${String(part.part).padStart(6, '0')}.age`),
    ),
  }))
  return Buffer.from(readTrack(session.id, sealed, [who]))
}

describe('before there are two auditors', () => {
  test('a session that must be recorded is not opened, and whoever asked is told what is missing', async () => {
    oblige({ record: true })
    const refused = await vendor.call<Problem>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect([refused.status, refused.body.code]).toEqual([503, 'recording.unavailable'])
    expect(refused.body.next_step).toContain('sallyport audit auditor add')
    const last = node.events().findLast(({ code }) => code === 'session.deny')
    expect(last?.text).toContain('recording.unavailable')
    expect(readdirSync(node.data)).not.toContain('recordings')
  })

  test('an auditor who has not shown that the key opens anything does not count', async () => {
    const added = await node.admin.ask<AddedAuditor>('POST', '/auditors', {
      name: 'anna',
      recipient: anna.recipient.text,
    })
    expect(added.auditor.state).toBe('unconfirmed')
    expect(() => openSealed(Buffer.from(added.test, 'base64'), [bert])).toThrow(
      /not sealed to this key/,
    )
    const wrong = await node.admin.call<Problem>('POST', '/auditors/anna/confirm', {
      secret: 'guessed',
    })
    expect([wrong.status, wrong.body.code]).toEqual([403, 'auditor.test'])
    expect(node.events().some(({ text }) => text.includes('is not confirmed'))).toBe(true)
    await enrol('bert', bert)
    oblige({ record: true })
    const refused = await vendor.call<Problem>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect(refused.body.code).toBe('recording.unavailable')
    const again = await node.admin.call<Problem>('POST', '/auditors', {
      name: 'anna2',
      recipient: anna.recipient.text,
    })
    expect(again.body.code).toBe('auditor.exists')
    const { plain } = openSealed(Buffer.from(added.test, 'base64'), [anna])
    const confirmed = await node.admin.ask<Auditor>('POST', '/auditors/anna/confirm', {
      secret: Buffer.from(plain).toString(),
    })
    expect(confirmed.state).toBe('active')
    const told = (operation: string) =>
      node
        .events()
        .filter(({ text }) => text.includes(operation) && text.includes(anna.recipient.text))
    expect(told('auditor:add')).not.toEqual([])
    expect(told('auditor:confirm').at(-1)?.text).toContain('is confirmed')
  })

  test('only an administrator says who they are', async () => {
    for (const person of [vendor, auditor]) {
      const refused = await person.call<Problem>('POST', '/auditors', {
        name: 'mallory',
        recipient: identityOf(randomBytes(32)).recipient.text,
      })
      expect(refused.status).toBe(403)
    }
    const bad = await node.admin.call<Problem>('POST', '/auditors', {
      name: 'mallory',
      recipient: `${anna.recipient.text.slice(0, -1)}!`,
    })
    expect(bad.status).toBe(400)
  })
})

describe('a Modbus session', () => {
  test('is kept with each request, its verdict, and the answer', async () => {
    oblige({ record: true })
    agent.target = (stream) => {
      stream.onData = (chunk) => {
        // One register for each request that comes through.
        const reply = Buffer.from([...chunk.subarray(0, 4), 0, 5, 1, 3, 2, 0, 42])
        stream.write(reply)
        stream.consumed(chunk.length)
      }
      stream.onEnd = () => stream.end()
    }
    const session = await open('registers')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write(Buffer.from('000100000006010300000001', 'hex'))
    await line.until('the register', ({ bytes }) => bytes.length >= 11)
    line.write(Buffer.from('0002000000060106000100ff', 'hex'))
    await line.until('the refusal', ({ bytes }) => bytes.length >= 20)
    await end(session)
    const file = await read(session, bert)
    expect(file.readUInt32LE(0)).toBe(0x0a0d0d0a)
    const text = file.toString('latin1')
    expect(text).toContain('allowed: read unit 1 function 3 address 0 x 1')
    expect(text).toMatch(/refused with exception 1: write unit 1 function 6/)
    for (const frame of [
      '000100000006010300000001',
      '0001000000050103020 02a'.replaceAll(' ', ''),
      '0002000000060106000100ff',
      '000200000003018601',
    ])
      expect(file.includes(Buffer.from(frame, 'hex')), frame).toBe(true)
    const told = await events(session)
    expect(own(told.find(({ code }) => code === 'session.start') as LoggedEvent)).toMatchObject({
      recording: 'pcapng',
      recipients: [anna.recipient.text, bert.recipient.text],
    })
    const last = told.at(-1) as LoggedEvent
    expect(last.code).toBe('session.end')
    const closing = told.find(({ code }) => code === 'recording.end') as LoggedEvent
    expect(own(last)['recording_root']).toBe(own(closing)['root'])
  })
})

test('a program that the agent starts is kept as the terminal it was seen on', async () => {
  oblige({ record: true })
  agent.target = (stream) => {
    stream.write(Buffer.from('$ '))
    stream.onData = (chunk) => {
      stream.consumed(chunk.length)
      stream.write(Buffer.from('uid=1000\r\n'))
      stream.signal(Buffer.from('{"t":"exit","code":0}'))
      stream.end()
    }
    stream.onEnd = () => {}
  }
  const session = await open('term')
  expect(session.recording).toBe('asciicast')
  await using client = await Client.dial(node)
  const terminal = { rows: 30, cols: 100, term: 'xterm' }
  const line = new Line(await client.stream(session, { terminal }, 'spawn'))
  await line.until('the prompt', ({ text }) => text === '$ ')
  line.stream.signal(Buffer.from('{"t":"winsize","rows":50,"cols":132}'))
  line.stream.signal(Buffer.from('{"t":"winsize","rows":0,"cols":1}'))
  line.write('id\r')
  await line.until('how it ended', ({ signals }) => signals.length > 0)
  line.stream.end()
  await line.gone()
  await end(session)
  const cast = readCast((await read(session, bert)).toString())
  expect(cast).toMatchObject({ cols: 100, rows: 30 })
  expect(cast?.events.map(({ code, text }) => [code, text])).toEqual([
    ['o', '$ '],
    ['r', '132x50'],
    ['o', 'uid=1000\r\n'],
    ['x', '0'],
  ])
})

test('a program whose caller asked for no terminal is kept with all that went into it', async () => {
  oblige({ record: true })
  const session = await open('term')
  await using client = await Client.dial(node)
  const line = new Line(await client.stream(session, {}, 'spawn'))
  line.write('rm -r /opt/line')
  await line.until('the echo', ({ text }) => text === 'rm -r /opt/line')
  line.stream.end()
  await line.gone()
  await end(session)
  const cast = readCast((await read(session, bert)).toString())
  expect(cast?.events.map(({ code, text }) => [code, text])).toEqual([
    ['i', 'rm -r /opt/line'],
    ['o', 'rm -r /opt/line'],
  ])
})

describe('a session of another protocol in the clear', () => {
  test('is kept byte for byte, and nothing of it is on disk unsealed', async () => {
    oblige({ record: true })
    const session = await open('plc')
    expect(session.recording).toBe('pcapng')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    const secret = `password-${randomBytes(8).toString('hex')}`
    line.write(secret)
    await line.until('the echo', ({ text }) => text === secret)
    await end(session)
    const file = await read(session, anna)
    expect(file.toString('latin1').split(secret)).toHaveLength(3)
    for (const name of readdirSync(join(directory(), session.id)))
      expect(readFileSync(join(directory(), session.id, name)).includes(secret)).toBe(false)
  })

  test('two connections at once are told apart', async () => {
    oblige({ record: true })
    const session = await open('plc')
    await using client = await Client.dial(node)
    const lines = await Promise.all([client.line(session), client.line(session)])
    for (const [at, line] of lines.entries()) {
      line.write(`line ${at}`)
      await line.until('the echo', ({ text }) => text === `line ${at}`)
    }
    await end(session)
    const file = await read(session, anna)
    const port = (text: string) => {
      const at = file.indexOf(text)
      // The tags before the payload: source port, destination port, end.
      return file.readUInt32BE(at - 4 - 8 - 4)
    }
    expect(port('line 0')).not.toBe(port('line 1'))
  })
})

test('an ssh session is carried with its flow alone, and its start says so', async () => {
  oblige({ record: true })
  const session = await open('shell')
  await using client = await Client.dial(node)
  const line = await client.line(session)
  line.write('SSH-2.0')
  await line.until('the echo', ({ text }) => text === 'SSH-2.0')
  await end(session)
  const told = await events(session)
  const start = own(told.find(({ code }) => code === 'session.start') as LoggedEvent)
  expect(start['recording']).toBe('flow')
  expect(start).not.toHaveProperty('recipients')
  expect((await auditor.call<Problem>('GET', `/recordings/${session.id}`)).status).toBe(404)
})

test('a web session is kept as what was asked, and nothing of what was said', async () => {
  oblige({ record: true, methods: ['GET', 'POST'] })
  agent.target = toPort((hmi.address() as AddressInfo).port)
  const session = await open('hmi')
  const { pathname, search, hostname } = new URL(session.url ?? '')
  const ask = async (path: string, method = 'GET', headers = {}, body?: string) => {
    const request = httpsRequest({
      host: '127.0.0.1',
      port: node.port,
      servername: hostname,
      ca: node.anchor,
      agent: false,
      method,
      path,
      headers: { host: `${hostname}:${node.port}`, ...headers },
    })
    request.end(body)
    const [response] = (await soon('an answer', once(request, 'response'))) as [IncomingMessage]
    for await (const _ of response);
    return response
  }
  const entered = await ask(pathname + search)
  const cookie = entered.headers['set-cookie']?.[0]?.split(';')[0] ?? ''
  expect((await ask('/start?page=2', 'GET', { cookie })).statusCode).toBe(200)
  const body = 'user=vera&password=hunter2'
  const type = 'application/x-www-form-urlencoded'
  expect(
    (await ask('/login?token=abcdef', 'POST', { cookie, 'content-type': type }, body)).statusCode,
  ).toBe(303)
  expect((await ask('/start', 'DELETE', { cookie })).statusCode).toBe(403)
  await end(session)
  const text = (await read(session, anna)).toString()
  for (const secret of ['hunter2', 'abcdef', 'topsecret', cookie, 'charset'])
    expect(text).not.toContain(secret)
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines).toMatchObject([
    {
      activity_id: 3,
      http_request: { url: { path: '/start', query_string: 'page=' } },
      http_response: { code: 200 },
    },
    {
      activity_id: 6,
      http_request: { url: { path: '/login', query_string: 'token=' }, content_type: type },
      http_response: { code: 303 },
      traffic: { bytes_in: body.length, bytes_out: 8 },
    },
    { activity_id: 2, status_code: 'http.method_refused' },
  ])
})

test.for([
  ['a recording', { record: true }, 'obligation.record'],
  ['somebody who watches', { supervise: true }, 'obligation.unsupported'],
  ['news to somebody', { notify: true }, 'obligation.notify'],
] as const)(
  'a request for which policy asks %s that the session does not have goes nowhere',
  async ([, change, code]) => {
    agent.target = toPort((hmi.address() as AddressInfo).port)
    const session = await open('hmi')
    const { pathname, search, hostname } = new URL(session.url ?? '')
    const ask = async (path: string, headers = {}) => {
      const request = httpsRequest({
        host: '127.0.0.1',
        port: node.port,
        servername: hostname,
        ca: node.anchor,
        agent: false,
        path,
        headers: { host: `${hostname}:${node.port}`, ...headers },
      }).end()
      const [response] = (await soon('an answer', once(request, 'response'))) as [IncomingMessage]
      for await (const _ of response);
      return response
    }
    const cookie = (await ask(pathname + search)).headers['set-cookie']?.[0]?.split(';')[0] ?? ''
    answer((decision, point) =>
      point === 'http.request' && decision.allow
        ? { ...decision, obligations: { ...decision.obligations, ...change } }
        : decision,
    )
    let reached = 0
    hmi.on('request', () => reached++)
    expect((await ask('/start', { cookie })).statusCode).toBe(403)
    expect(reached).toBe(0)
    const told = (await events(session)).findLast((one) => one.code === 'http.request')
    expect(told?.text).toContain(code)
  },
)

describe('the flow record', () => {
  test('is there for every session, recorded or not, and adds up to what its end says', async () => {
    const session = await open('plc')
    expect(session.recording).toBeNull()
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write('x'.repeat(10_000))
    await line.until('the echo', ({ total }) => total === 10_000)
    await end(session)
    const told = await events(session)
    const start = own(told.find(({ code }) => code === 'session.start') as LoggedEvent)
    expect(start).not.toHaveProperty('recording')
    const buckets = told
      .filter(({ code }) => code === 'session.stats')
      .flatMap((event) => own(event)['buckets'] as [number, number, number][])
    const sums = buckets.reduce<[number, number]>(([a, b], [, i, o]) => [a + i, b + o], [0, 0])
    const { event } = told.at(-1) as LoggedEvent
    expect(sums).toEqual([10_000, 10_000])
    expect(event['traffic']).toMatchObject({ bytes_in: 10_000, bytes_out: 10_000 })
  })
})

describe('reading one', () => {
  let session: OpenedSession
  beforeAll(async () => {
    // Made under its own policy, which ends with the test: here the file of another session serves.
    const { items } = await auditor.ask<{ items: Recording[] }>('GET', '/recordings')
    session = { id: items.find(({ format }) => format === 'pcapng')?.session } as OpenedSession
  })

  test('is the auditor’s, and no one else’s', async () => {
    for (const person of [vendor, node.admin]) {
      const refused = await person.call<Problem>('GET', `/recordings/${session.id}/parts/1/1`)
      expect(refused.status).toBe(403)
    }
    expect((await vendor.call('GET', '/recordings')).status).toBe(403)
    expect((await node.admin.call('GET', '/recordings')).status).toBe(200)
  })

  test('is an event before the first byte, and so is what was looked at', async () => {
    const before = (await events(session)).length
    const response = await auditor.call('GET', `/recordings/${session.id}/parts/1/1`)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/octet-stream')
    await auditor.ask('POST', `/recordings/${session.id}/views`, {
      how: 'replay',
      ranges: [{ track: 1, from_ms: 0, to_ms: 500 }],
    })
    const told = (await events(session)).slice(before)
    expect(told.map(({ code }) => code)).toEqual(['recording.read', 'recording.view'])
    for (const { text } of told) expect(text).toContain(auditor.email)
  })

  test.for(['0/1', '1/0', '1/99', '1/x', '..%2f1/1'])('there is no part %s', async (part) => {
    const { status } = await auditor.call('GET', `/recordings/${session.id}/parts/${part}`)
    expect([400, 404]).toContain(status)
  })
})

describe('a recording that cannot go on', () => {
  test('ends its session with the reason, and what was there is closed', async () => {
    oblige({ record: true })
    const session = await open('plc')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write('first')
    await line.until('the echo', ({ text }) => text === 'first')
    // The next part finds no place.
    rmSync(join(directory(), session.id), { recursive: true })
    const flood = setInterval(() => line.write(Buffer.alloc(64 * 1024)), 5)
    onTestFinished(() => clearInterval(flood))
    const closed = await line.gone()
    clearInterval(flood)
    expect(closed.code).toBe('recording.failed')
    const ended = await until('the end is recorded', async () => {
      const record = await vendor.ask<Session>('GET', `/sessions/${session.id}`)
      return record.state === 'ended' && record
    })
    expect(ended.reason).toBe('recording_failed')
    const told = await events(session)
    expect(told.map(({ code }) => code)).toContain('recording.fail')
    const last = told.findLast(({ code }) => code === 'session.end') as LoggedEvent
    expect(last.text).toContain('recording_failed')
  })

  test.for([
    [{ record: true }, 'recording.unavailable'],
    [{ notify: true }, 'obligation.notify'],
    [{ supervise: true }, 'obligation.unsupported'],
  ] as const)('what policy wants only later (%o) opens no line', async ([change, expected]) => {
    const session = await open('plc')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write('a')
    await line.until('the echo', ({ text }) => text === 'a')
    oblige(change)
    const { code } = await refusalOf(client.line(session))
    expect(code).toBe(expected)
  })
})

test('a node that died is followed by one that closes what was open, and all of it is proven', async () => {
  oblige({ record: true })
  const session = await open('plc')
  await using client = await Client.dial(node)
  const line = await client.line(session)
  line.write('before the end')
  await line.until('the echo', ({ text }) => text === 'before the end')
  // What the disk holds while the session is open is what a dead node leaves.
  const data = mkdtempSync(join(tmpdir(), 'sallyport-dead-'))
  onTestFinished(() => rmSync(data, { recursive: true, force: true }))
  await until('a part is begun', () =>
    readdirSync(join(directory(), session.id)).some((name) => name.endsWith('.part')),
  )
  cpSync(node.data, data, { recursive: true })
  await (await startNode({ data, bare: true }))[Symbol.asyncDispose]()
  const log = join(data, 'log', 'gw1', '1')
  const flags = [
    '--from',
    join(data, 'recordings'),
    '--log',
    log,
    '--key',
    join(data, 'log-keys.txt'),
  ]
  const ran = await run(data, 'recording', 'verify', ...flags, session.id)
  expect(ran.out).toContain(`proven: ${session.id}, 1 parts, 1 of them cut off`)
  expect(ran.code).toBe(0)
  const stored = await readRecording(join(data, 'recordings'), session.id)
  expect(stored?.end?.reason).toBe('node_crash')
})

test('an auditor who is removed opens nothing that is recorded later, and too few of them close the door', async () => {
  await node.admin.ask('POST', '/auditors/anna/remove')
  oblige({ record: true })
  const refused = await vendor.call<Problem>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
  })
  expect(refused.body.code).toBe('recording.unavailable')
  expect((await node.admin.call<Problem>('POST', '/auditors/anna/remove')).status).toBe(404)
})
