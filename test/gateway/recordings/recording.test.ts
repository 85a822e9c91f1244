/** Sessions that must be recorded, on a real node: each protocol is kept in its format, and read by auditors alone. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { OpenedSession, Problem, Recording } from '#api'
import { readCast } from '#audit'
import { soon, type LoggedEvent } from '../../support/node.ts'
import { oblige } from '../../support/policy.ts'
import { Client, echo, Line, toPort } from '../../support/tunnels.ts'
import { anna, bert, own, Plant } from './plant.ts'

let plant: Plant
beforeAll(async () => {
  plant = await Plant.start()
})
afterAll(async () => await plant[Symbol.asyncDispose]())
beforeEach(() => {
  plant.agent.target = echo
})

describe('a Modbus session', () => {
  test('is kept with each request, its verdict, and the answer', async () => {
    oblige({ record: true })
    plant.agent.target = (stream) => {
      stream.onData = (chunk) => {
        // One register for each request that comes through.
        const reply = Buffer.from([...chunk.subarray(0, 4), 0, 5, 1, 3, 2, 0, 42])
        stream.write(reply)
        stream.consumed(chunk.length)
      }
      stream.onEnd = () => stream.end()
    }
    const session = await plant.open('registers')
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    line.write(Buffer.from('000100000006010300000001', 'hex'))
    await line.until('the register', ({ bytes }) => bytes.length >= 11)
    line.write(Buffer.from('0002000000060106000100ff', 'hex'))
    await line.until('the refusal', ({ bytes }) => bytes.length >= 20)
    await plant.end(session)
    const file = await plant.read(session, bert)
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
    const told = plant.events(session)
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
  plant.agent.target = (stream) => {
    stream.write(Buffer.from('$ '))
    stream.onData = (chunk) => {
      stream.consumed(chunk.length)
      stream.write(Buffer.from('uid=1000\r\n'))
      stream.signal(Buffer.from('{"t":"exit","code":0}'))
      stream.end()
    }
    stream.onEnd = () => {}
  }
  const session = await plant.open('term')
  expect(session.recording).toBe('asciicast')
  await using client = await Client.dial(plant.node)
  const terminal = { rows: 30, cols: 100, term: 'xterm' }
  const line = new Line(await client.stream(session, { terminal }, 'spawn'))
  await line.until('the prompt', ({ text }) => text === '$ ')
  line.stream.signal(Buffer.from('{"t":"winsize","rows":50,"cols":132}'))
  line.stream.signal(Buffer.from('{"t":"winsize","rows":0,"cols":1}'))
  line.write('id\r')
  await line.until('how it ended', ({ signals }) => signals.length > 0)
  line.stream.end()
  await line.gone()
  await plant.end(session)
  const cast = readCast((await plant.read(session, bert)).toString())
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
  const session = await plant.open('term')
  await using client = await Client.dial(plant.node)
  const line = new Line(await client.stream(session, {}, 'spawn'))
  line.write('rm -r /opt/line')
  await line.until('the echo', ({ text }) => text === 'rm -r /opt/line')
  line.stream.end()
  await line.gone()
  await plant.end(session)
  const cast = readCast((await plant.read(session, bert)).toString())
  expect(cast?.events.map(({ code, text }) => [code, text])).toEqual([
    ['i', 'rm -r /opt/line'],
    ['o', 'rm -r /opt/line'],
  ])
})

describe('a session of another protocol in the clear', () => {
  test('is kept byte for byte, and nothing of it is on disk unsealed', async () => {
    oblige({ record: true })
    const session = await plant.open('plc')
    expect(session.recording).toBe('pcapng')
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    const secret = `password-${randomBytes(8).toString('hex')}`
    line.write(secret)
    await line.until('the echo', ({ text }) => text === secret)
    await plant.end(session)
    const file = await plant.read(session, anna)
    expect(file.toString('latin1').split(secret)).toHaveLength(3)
    for (const name of readdirSync(join(plant.directory(), session.id)))
      expect(readFileSync(join(plant.directory(), session.id, name)).includes(secret)).toBe(false)
  })

  test('two connections at once are told apart', async () => {
    oblige({ record: true })
    const session = await plant.open('plc')
    await using client = await Client.dial(plant.node)
    const lines = await Promise.all([client.line(session), client.line(session)])
    for (const [at, line] of lines.entries()) {
      line.write(`line ${at}`)
      await line.until('the echo', ({ text }) => text === `line ${at}`)
    }
    await plant.end(session)
    const file = await plant.read(session, anna)
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
  const session = await plant.open('shell')
  await using client = await Client.dial(plant.node)
  const line = await client.line(session)
  line.write('SSH-2.0')
  await line.until('the echo', ({ text }) => text === 'SSH-2.0')
  await plant.end(session)
  const told = plant.events(session)
  const start = own(told.find(({ code }) => code === 'session.start') as LoggedEvent)
  expect(start['recording']).toBe('flow')
  expect(start).not.toHaveProperty('recipients')
  expect((await plant.auditor.call<Problem>('GET', `/recordings/${session.id}`)).status).toBe(404)
})

test('a web session is kept as what was asked, and nothing of what was said', async () => {
  oblige({ record: true, methods: ['GET', 'POST'] })
  plant.agent.target = toPort((plant.hmi.address() as AddressInfo).port)
  const session = await plant.open('hmi')
  const { pathname, search, hostname } = new URL(session.url ?? '')
  const ask = async (path: string, method = 'GET', headers = {}, body?: string) => {
    const request = httpsRequest({
      host: '127.0.0.1',
      port: plant.node.port,
      servername: hostname,
      ca: plant.node.anchor,
      agent: false,
      method,
      path,
      headers: { host: `${hostname}:${plant.node.port}`, ...headers },
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
  await plant.end(session)
  const text = (await plant.read(session, anna)).toString()
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

describe('the flow record', () => {
  test('is there for every session, recorded or not, and adds up to what its end says', async () => {
    const session = await plant.open('plc')
    expect(session.recording).toBeNull()
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    line.write('x'.repeat(10_000))
    await line.until('the echo', ({ total }) => total === 10_000)
    await plant.end(session)
    const told = plant.events(session)
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
    const { items } = await plant.auditor.ask<{ items: Recording[] }>('GET', '/recordings')
    session = { id: items.find(({ format }) => format === 'pcapng')?.session } as OpenedSession
  })

  test('is the auditor’s, and no one else’s', async () => {
    for (const person of [plant.vendor, plant.node.admin]) {
      const refused = await person.call<Problem>('GET', `/recordings/${session.id}/parts/1/1`)
      expect(refused.status).toBe(403)
    }
    expect((await plant.vendor.call('GET', '/recordings')).status).toBe(403)
    expect((await plant.node.admin.call('GET', '/recordings')).status).toBe(200)
  })

  test('is an event before the first byte, and so is what was looked at', async () => {
    const before = plant.events(session).length
    const response = await plant.auditor.call('GET', `/recordings/${session.id}/parts/1/1`)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/octet-stream')
    await plant.auditor.ask('POST', `/recordings/${session.id}/views`, {
      how: 'replay',
      ranges: [{ track: 1, from_ms: 0, to_ms: 500 }],
    })
    const told = plant.events(session).slice(before)
    expect(told.map(({ code }) => code)).toEqual(['recording.read', 'recording.view'])
    for (const { text } of told) expect(text).toContain(plant.auditor.email)
  })

  test.for(['0/1', '1/0', '1/99', '1/x', '..%2f1/1'])('there is no part %s', async (part) => {
    const { status } = await plant.auditor.call('GET', `/recordings/${session.id}/parts/${part}`)
    expect([400, 404]).toContain(status)
  })
})
