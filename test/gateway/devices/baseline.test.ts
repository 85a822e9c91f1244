/**
 * Baseline and drift with nothing pretended: a node, an agent, and programs that are replaced and open
 * further ports while it watches.
 */
import { once } from 'node:events'
import { realpathSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { configFrom, enrolAgent } from '#agent'
import type { Device, DeviceBaseline, DeviceToken, Problem } from '#api'
import { Directory, running, type Running } from '../../agent/device.ts'
import {
  copyOf,
  startProgram,
  type Executable,
  type Started,
} from '../../agent/programs/process.ts'
import { freePort, grantFor, openSession, startNode, TENANT, until } from '../../support/node.ts'
import type { Person, TestNode } from '../../support/node.ts'

const PYTHON = realpathSync('/usr/bin/python3')
/** Listens on the port it is given and prints it; on a line of input, on a second one. */
const DOORS = `
import socket, sys
def listen(port):
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(('127.0.0.1', port))
    door.listen()
    print(door.getsockname()[1], flush=True)
    return door
first = listen(int(sys.argv[1]))
sys.stdin.readline()
second = listen(0)
sys.stdin.read()
`

let node: TestNode
let operator: Person
let directory: Directory
let other: Executable
let port: number
let program: Started
let agent: Running

const start = (exe: string) => startProgram('', ['-c', DOORS, String(port)], { exe, bare: true })
const baseline = () => node.admin.ask<DeviceBaseline>('GET', '/devices/press-07/baseline')
const told = (what: string, check: (row: DeviceBaseline) => boolean) =>
  until(what, async () => {
    const row = await baseline()
    return check(row) && row
  })
const drifted = (row: DeviceBaseline) =>
  row.differences.filter(({ drift }) => drift).map(({ fact }) => fact)

beforeAll(async () => {
  node = await startNode()
  directory = new Directory()
  other = copyOf(PYTHON)
  port = await freePort()
  program = await start(PYTHON)
  operator = await node.person('oda', { party: 'staff', roles: ['operator'] })
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
    id: 'press-07',
  })
  const config = configFrom(
    {
      gateway: node.origin,
      device: 'press-07',
      tenant: TENANT,
      rootSha256: token.ca_sha256,
      targets: [`plc=tcp:127.0.0.1:${port}`],
    },
    directory.path,
  )
  await enrolAgent(config, { token: token.token, log: () => undefined })
  agent = running(config)
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await program[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
  other[Symbol.dispose]()
  directory[Symbol.dispose]()
})

test('accepted by its hash; a second port and another executable are drift; the first again is not', async () => {
  const first = await told('the agent tells', ({ current }) => current !== null)
  expect(first).toMatchObject({ accepted: null, drift: null, differences: [] })
  expect(first.current?.processes).toMatchObject([
    { process: 'plc', kind: 'tcp', programs: [{ exe: PYTHON }], listens: [`127.0.0.1:${port}`] },
  ])
  expect((await node.admin.ask<Device>('GET', '/devices/press-07')).drift).toBeNull()

  const wrong = await node.admin.call<Problem>('POST', '/devices/press-07/baseline', {
    hash: '0'.repeat(64),
  })
  expect([wrong.status, wrong.body.code]).toEqual([409, 'baseline.changed'])
  expect((await baseline()).accepted).toBeNull()
  const accepted = await node.admin.ask<DeviceBaseline>('POST', '/devices/press-07/baseline', {
    hash: first.current?.hash,
    reason: 'as commissioned',
  })
  expect(accepted).toMatchObject({ drift: false, accepted: { hash: first.current?.hash } })

  let from = node.size()
  program.child.stdin?.write('open\n')
  const second = await told('the second port', ({ drift }) => drift === true)
  expect(drifted(second)).toEqual(['listens'])
  expect((await node.admin.ask<Device>('GET', '/devices/press-07')).drift).toBe(true)
  const codes = () => node.events(from).map(({ code }) => code)
  await until('the finding', () => codes().includes('finding.drift'))
  expect(codes()).toContain('device.inventory')

  await end(program)
  const silent = await told('nobody listens', ({ drift }) => drift === false)
  expect(silent.differences).toMatchObject([{ fact: 'listener', current: null, drift: false }])

  from = node.size()
  program = await start(other.path)
  const replaced = await told('another executable', ({ drift }) => drift === true)
  expect(drifted(replaced)).toEqual(['exe', 'sha256'])
  const finding = await until('the finding', () =>
    node.events(from).find(({ code }) => code === 'finding.drift'),
  )
  expect(finding.text).toContain(other.sha256)

  await end(program)
  program = await start(PYTHON)
  const mended = await told('the first again', ({ differences }) => differences.length === 0)
  expect(mended.drift).toBe(false)
})

test('a session that has not connected yet ends when another executable takes the place of its process', async () => {
  const current = await told('the program', ({ current: now }) => {
    return now?.processes[0]?.programs[0]?.exe === PYTHON
  })
  const sha256 = [current.current?.processes[0]?.programs[0]?.sha256]
  await node.admin.ask('PUT', '/devices/press-07/processes/plc', {
    kind: 'tcp',
    expect: { exe: [PYTHON], sha256 },
  })
  const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
  const from = node.size()
  const session = await openSession(vendor, 'press-07', 'plc')
  await end(program)
  program = await start(other.path)
  const ended = await until('the session ends', () =>
    node.events(from).find(({ code, text }) => code === 'session.end' && text.includes(session.id)),
  )
  expect(ended.text).toContain('process_mismatch')
})

async function end({ child }: Started): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}
