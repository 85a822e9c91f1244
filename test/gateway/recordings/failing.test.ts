/** Recordings that cannot be, or cannot go on: what they are of goes nowhere, ends, or is closed by the next node. */
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Session } from '#api'
import { readRecording } from '#audit'
import { run } from '../../cli/run.ts'
import { soon, startNode, until, type LoggedEvent } from '../../support/node.ts'
import { answer, oblige } from '../../support/policy.ts'
import { Client, echo, refusalOf, toPort } from '../../support/tunnels.ts'
import { Plant } from './plant.ts'

let plant: Plant
beforeAll(async () => {
  plant = await Plant.start()
})
afterAll(async () => await plant[Symbol.asyncDispose]())
beforeEach(() => {
  plant.agent.target = echo
})

test.for([
  ['a recording', { record: true }, 'obligation.record'],
  ['somebody who watches', { supervise: true }, 'obligation.supervise'],
  ['news to somebody', { notify: true }, 'obligation.notify'],
] as const)(
  'a request for which policy asks %s that the session does not have goes nowhere',
  async ([, change, code]) => {
    plant.agent.target = toPort((plant.hmi.address() as AddressInfo).port)
    const session = await plant.open('hmi')
    const { pathname, search, hostname } = new URL(session.url ?? '')
    const ask = async (path: string, headers = {}) => {
      const request = httpsRequest({
        host: '127.0.0.1',
        port: plant.node.port,
        servername: hostname,
        ca: plant.node.anchor,
        agent: false,
        path,
        headers: { host: `${hostname}:${plant.node.port}`, ...headers },
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
    plant.hmi.on('request', () => reached++)
    expect((await ask('/start', { cookie })).statusCode).toBe(403)
    expect(reached).toBe(0)
    const told = plant.events(session).findLast((one) => one.code === 'http.request')
    expect(told?.text).toContain(code)
  },
)

describe('a recording that cannot go on', () => {
  test('ends its session with the reason, and what was there is closed', async () => {
    oblige({ record: true })
    const session = await plant.open('plc')
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    line.write('first')
    await line.until('the echo', ({ text }) => text === 'first')
    // The next part finds no place.
    rmSync(join(plant.directory(), session.id), { recursive: true })
    const flood = setInterval(() => line.write(Buffer.alloc(64 * 1024)), 5)
    onTestFinished(() => clearInterval(flood))
    const closed = await line.gone()
    clearInterval(flood)
    expect(closed.code).toBe('recording.failed')
    const ended = await until('the end is recorded', async () => {
      const record = await plant.vendor.ask<Session>('GET', `/sessions/${session.id}`)
      return record.state === 'ended' && record
    })
    expect(ended.reason).toBe('recording_failed')
    const told = plant.events(session)
    expect(told.map(({ code }) => code)).toContain('recording.fail')
    const last = told.findLast(({ code }) => code === 'session.end') as LoggedEvent
    expect(last.text).toContain('recording_failed')
  })

  test.for([
    [{ record: true }, 'recording.unavailable'],
    [{ notify: true }, 'obligation.notify'],
    [{ supervise: true }, 'obligation.supervise'],
  ] as const)('what policy wants only later (%o) opens no line', async ([change, expected]) => {
    const session = await plant.open('plc')
    await using client = await Client.dial(plant.node)
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
  const session = await plant.open('plc')
  await using client = await Client.dial(plant.node)
  const line = await client.line(session)
  line.write('before the end')
  await line.until('the echo', ({ text }) => text === 'before the end')
  // What the disk holds while the session is open is what a dead node leaves.
  const data = mkdtempSync(join(tmpdir(), 'sallyport-dead-'))
  onTestFinished(() => rmSync(data, { recursive: true, force: true }))
  await until('a part is begun', () =>
    readdirSync(join(plant.directory(), session.id)).some((name) => name.endsWith('.part')),
  )
  cpSync(plant.node.data, data, { recursive: true })
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
