/**
 * A vendor writes to a controller: a real gateway, a real agent, a Modbus server as a process of its own, and two keys on
 * one of two devices. What the server saw, it says itself.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Ceremony, DeviceToken, EndedGrant, Grant } from '#api'
import { configFrom, enrolAgent, pinApprovers, runAgent } from '#agent'
import { softKey } from '../support/authenticator.ts'
import {
  openSession,
  send,
  sha256,
  startNode,
  TENANT,
  until,
  type Person,
  type TestNode,
} from '../support/node.ts'
import { answer as decideAs } from '../support/policy.ts'
import { Client, refusalOf, type Line } from '../support/tunnels.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-write-'))
const WINDOW = { unit: 1, from: 0, to: 4 }
const stopping = new AbortController()
const agents: Promise<void>[] = []
const seen: string[] = []
let node: TestNode
let vendor: Person
let plc: ChildProcess
let port = 0

/** Starts the controller from an executable of its own; it tells each request that it got. */
async function startPlc(): Promise<string> {
  const exe = join(home, 'plc-server')
  copyFileSync(process.execPath, exe)
  const program = resolve(import.meta.dirname, 'controller.ts')
  plc = spawn(exe, [program], { stdio: ['ignore', 'pipe', 'inherit'] })
  if (plc.stdout === null) throw new Error('no output')
  const lines = createInterface({ input: plc.stdout })
  const [first] = (await once(lines, 'line')) as [string]
  port = (JSON.parse(first) as { port: number }).port
  lines.on('line', (line) => {
    const { pdu } = JSON.parse(line) as { pdu?: string }
    if (pdu !== undefined) seen.push(pdu)
  })
  return exe
}

async function bring(id: string, exe: string, approvers?: object): Promise<void> {
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id })
  const expects = { sha256: [sha256(readFileSync(exe))] }
  await node.admin.ask('PUT', `/devices/${id}/processes/plc`, {
    kind: 'modbus',
    port,
    expect: expects,
  })
  const options = {
    gateway: node.origin,
    device: id,
    rootSha256: readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').split(/\s/)[0] ?? '',
    targets: [`plc=tcp:127.0.0.1:${port}`],
  }
  const config = configFrom(options, join(home, id))
  await enrolAgent(config, { token: token.token, log: () => undefined })
  if (approvers !== undefined)
    pinApprovers(config, JSON.stringify({ ...approvers, device: id }), 'set.json')
  agents.push(runAgent(config, { signal: stopping.signal, log: () => undefined }))
}

const key = (() => {
  let made: ReturnType<typeof softKey> | undefined
  return () => (made ??= softKey(node.origin))
})()

async function answered({ secret, options }: Ceremony, how: 'register' | 'answer'): Promise<void> {
  const { challenge } = options as { challenge: string }
  const credential = how === 'register' ? key().register(challenge) : key().answer(challenge)
  const body = { secret, credential }
  const reply = await send(node, { method: 'POST', path: '/api/v1/ceremonies/answer', body })
  if (reply.status !== 200) throw new Error(reply.text)
}

async function granted(device: string, more: object, signed = false): Promise<Grant> {
  const body = { device, processes: ['plc'], duration_s: 600, reason: 'service', ...more }
  const grant = await vendor.ask<Grant>('POST', '/grants', body)
  if (signed)
    await answered(
      await node.admin.ask<Ceremony>('POST', `/grants/${grant.id}/approval`, {}),
      'answer',
    )
  else await node.admin.ask('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
  return grant
}

beforeAll(async () => {
  node = await startNode()
  const exe = await startPlc()
  await answered(await node.admin.ask<Ceremony>('POST', '/passkeys', { name: 'key' }), 'register')
  const approver = { person: 'admin', credential: key().id, key: key().signing }
  await bring('press-07', exe)
  await bring('press-08', exe, {
    v: 1,
    tenant: TENANT,
    seq: 1,
    quorum: 1,
    relying_party: { id: 'localhost', origins: [node.origin] },
    approvers: [approver],
    modbus: ['plc'],
  })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await until('both devices are connected', async () => (await node.health()).devices === 2)
})
afterAll(async () => {
  stopping.abort()
  await Promise.all(agents)
  plc.kill('SIGTERM')
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

let tid = 0
/** Asks `unit` with a PDU and gives the PDU of the answer, both as hex. */
async function ask(line: Line, pdu: string, unit = 1): Promise<string> {
  const frame = Buffer.alloc(7)
  frame.writeUInt16BE(++tid)
  frame.writeUInt16BE(1 + pdu.length / 2, 4)
  frame[6] = unit
  const before = line.total
  line.write(Buffer.concat([frame, Buffer.from(pdu, 'hex')]))
  await line.until(`an answer to ${pdu}`, ({ total }) => total >= before + 9)
  return line.bytes.subarray(before + 7).toString('hex')
}
const written = (from: number) => node.events(from).filter(({ code }) => code === 'ot.write')
const SET_3 = '0600030007'
const SET_5 = '0600050007'
const READ_3 = '0300030001'

test('read only, then a second grant: in its addresses, each write in the log, and an end at once', async () => {
  await granted('press-07', { duration_s: 3600 })
  const session = await openSession(vendor, 'press-07', 'plc')
  await using client = await Client.dial(node)
  const reader = await client.line(session)
  expect(await ask(reader, READ_3)).toMatch(/^0302/)
  expect(await ask(reader, SET_3)).toBe('8601')
  const grant = await granted('press-07', { ot_level: 2, ot_windows: [WINDOW] })
  const line = await client.line(session)
  const from = node.size()
  seen.length = 0
  expect(await ask(line, SET_3)).toBe(SET_3)
  expect(await ask(line, SET_5)).toBe('8602')
  expect(await ask(line, SET_3, 0)).toBe('860b')
  expect(await ask(line, '1000000002040001' + '0002')).toBe('1000000002')
  expect(seen).toEqual([SET_3, '10000000020400010002'])
  expect(written(from)).toHaveLength(2)
  expect(written(from).every(({ text }) => text.includes(grant.id))).toBe(true)
  const ended = await node.admin.ask<EndedGrant>('POST', `/grants/${grant.id}/revoke`, {
    reason: 'x',
  })
  expect(ended.cut.connections).toHaveLength(1)
  expect((await line.gone()).code).toBe('grant.narrowed')
  expect(await ask(reader, READ_3)).toMatch(/^0302/)
  expect(await ask(await client.line(session), SET_3)).toBe('8601')
  await vendor.ask('POST', `/sessions/${session.id}/end`)
})

test('two keys: what its approvers signed is written; without them a connection reads, and a gateway that says more opens nothing', async () => {
  await granted('press-08', { duration_s: 3600 }, true)
  const session = await openSession(vendor, 'press-08', 'plc')
  await using client = await Client.dial(node)
  expect(await ask(await client.line(session), READ_3)).toMatch(/^0302/)
  // Approved by the sign-in alone: good enough for this gateway, and not for the device.
  const unsigned = await granted('press-08', { ot_level: 2, ot_windows: [WINDOW] })
  // The device opens it to read, which is what was signed.
  const reader = await client.line(session)
  expect([await ask(reader, SET_3), (await ask(reader, READ_3)).slice(0, 4)]).toEqual([
    '8601',
    '0302',
  ])
  expect((await vendor.ask<Grant>('GET', `/grants/${unsigned.id}`)).first_used_at).toBeNull()
  await node.admin.ask('POST', `/grants/${unsigned.id}/revoke`, { reason: 'x' })

  await granted('press-08', { ot_level: 2, ot_windows: [WINDOW] }, true)
  const line = await client.line(session)
  seen.length = 0
  expect([await ask(line, SET_3), await ask(line, SET_5)]).toEqual([SET_3, '8602'])
  expect(seen).toEqual([SET_3])
  // And what the gateway would add to the addresses that were signed opens nothing either.
  decideAs((decision) => ({
    ...decision,
    obligations: { ...decision.obligations, ot_windows: [[{ ...WINDOW, to: 9 }]] },
  }))
  await vendor.ask('POST', `/sessions/${session.id}/end`)
  const wider = await openSession(vendor, 'press-08', 'plc')
  expect((await refusalOf(client.stream(wider))).told?.msg).toContain('approvers.level')
})
