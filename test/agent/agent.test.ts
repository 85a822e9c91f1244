/** An agent and its gateway: what it greets with and reports, and what it opens nothing for. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { FourTuple } from '../../agent-tunnel/agent/scope/address.ts'
import { unseen } from '../../agent-tunnel/agent/scope/observed.ts'
import { ProcessScope } from '../../agent-tunnel/agent/scope/owner.ts'
import type { Observation } from '../../agent-tunnel/agent/scope/owner.ts'
import { sha256Of, startProgram } from './programs/process.ts'
import { enrolled, Directory, running } from './device.ts'
import { FakeGateway, holds, openStream, soon } from './gateway.ts'
import { listening, scope } from './listening.ts'

const node = { sha256: sha256Of(process.execPath) }

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

test('connects, greets, is welcomed, reports its targets, leaves in good form', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [
    `plc=tcp:127.0.0.1:${target.port}`,
    'press=lan:192.0.2.7:502',
  ])
  await using agent = running(config, { scope })
  const held = await gateway.nextTunnel()
  expect(held.greeting).toMatchObject({
    v: 1,
    agent: { version: '0.1.0', version_int: 1000 },
    tls: { version: 'TLSv1.3', group: 'X25519MLKEM768' },
    targets: [
      {
        process: 'plc',
        kind: 'tcp',
        listener: { phase: 'listener', sha256: node.sha256, pid: target.pid },
        listens: [`127.0.0.1:${target.port}`],
      },
      { process: 'press', kind: 'lan', listener: null, listens: [] },
    ],
    unreadable: expect.any(Number),
    looks: 1,
  })
  expect(held.tunnel.peer.role).toBe('agent')
  await holds(() => expect(agent.logged('tunnel.up')).toHaveLength(1))
  await holds(() =>
    expect(JSON.parse(readFileSync(`${directory.path}/status.json`, 'utf8'))).toMatchObject({
      state: 'connected',
      gateway: 'gw1',
      pid: process.pid,
    }),
  )
  await agent.stop()
  expect(await soon('close', held.tunnel.closed)).toMatchObject({
    code: 'agent.stopping',
    fault: 'remote',
  })
})

test('a listener that changes is reported on the control stream', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
  await using _agent = running(config, { scope })
  const held = await gateway.nextTunnel()
  target.child.kill('SIGKILL')
  await holds(() =>
    expect(held.reports.at(-1)).toEqual({
      type: 'targets',
      targets: [{ process: 'plc', kind: 'tcp', listener: null, listens: [] }],
      unreadable: expect.any(Number),
    }),
  )
})

test('asked to look, it tells what differs, and behind that, that it has looked', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
  await using _agent = running(config, { scope })
  const held = await gateway.nextTunnel()
  const gone = once(target.child, 'exit')
  target.child.kill('SIGKILL')
  await gone
  const look = (id: number) => held.control.write(Buffer.from(`{"type":"look","id":${id}}\n`))
  look(7)
  look(8)
  await holds(() => expect(held.reports.at(-1)).toEqual({ type: 'looked', id: 8 }))
  const told = held.reports.map(({ type }) => type)
  expect(told.filter((type) => type === 'looked')).toHaveLength(2)
  expect(held.reports[told.indexOf('targets')]).toMatchObject({
    targets: [{ process: 'plc', listener: null }],
  })
  expect(told.indexOf('targets')).toBeLessThan(told.indexOf('looked'))
})

describe('refused, with a code', () => {
  let directory: Directory
  let agent: ReturnType<typeof running>
  let held: Awaited<ReturnType<FakeGateway['nextTunnel']>>
  let stopped: Awaited<ReturnType<typeof startProgram>>
  beforeAll(async () => {
    directory = new Directory()
    stopped = await startProgram('target.ts')
    stopped.child.kill('SIGSTOP')
    const targets = [
      'down=tcp:127.0.0.1:1',
      `stuck=tcp:127.0.0.1:${stopped.port}`,
      'self=lan:127.0.0.2:9'.replace('127.0.0.2', ownAddress()),
    ]
    const config = await enrolled(gateway, directory, targets)
    agent = running({ ...config, acceptDeadlineMs: 200 }, { scope })
    held = await gateway.nextTunnel()
  })
  afterAll(async () => {
    await agent.stop()
    await stopped[Symbol.asyncDispose]()
    directory[Symbol.dispose]()
  })

  test.for([
    ['a process this device does not name', 'nope', {}, 'target.unknown'],
    ['a target that is down', 'down', {}, 'target.unreachable'],
    ['a target that does not accept', 'stuck', {}, 'target.unobserved'],
    ['a lan target that is this machine', 'self', {}, 'target.unreachable'],
    ['no time left', 'down', { remaining_ms: 0 }, 'lease.spent'],
    ['less than no time', 'down', { remaining_ms: -5 }, 'lease.spent'],
    ['time that is no number', 'down', { remaining_ms: '60000' }, 'open.metadata'],
    ['time without end', 'down', { remaining_ms: 1e300 }, 'open.metadata'],
    ['a session id that is none', 'down', { session: '../../etc' }, 'open.metadata'],
    ['a process name that is none', 'PLC!', {}, 'open.metadata'],
    ['a prototype for a process', '__proto__', {}, 'open.metadata'],
    ['another version', 'down', { v: 2 }, 'open.metadata'],
    [
      'an address smuggled in changes nothing',
      'nope',
      { target: '127.0.0.1:22', host: '127.0.0.1' },
      'target.unknown',
    ],
  ] as const)('%s', async ([, process, overrides, code]) => {
    await expect(openStream(held, process, overrides)).rejects.toMatchObject({
      name: 'TunnelRefused',
      code,
    })
  })

  test.for([
    ['not JSON', '\x00\xff'],
    ['not an object', '[]'],
    ['null', 'null'],
    ['nothing', ''],
    ['4 KiB of brackets', '['.repeat(4096)],
  ] as const)('metadata that is %s', async ([, text]) => {
    await expect(held.tunnel.open('tcp', Buffer.from(text, 'latin1'))).rejects.toMatchObject({
      code: 'open.metadata',
    })
  })

  test.for(['relay', 'control'] as const)('a stream of kind %s', async (kind) => {
    await expect(held.tunnel.open(kind, Buffer.from('{}'))).rejects.toMatchObject({
      code: 'open.kind',
    })
  })

  test('after all that the tunnel is the same one', async () => {
    await expect(openStream(held, 'nope')).rejects.toMatchObject({ code: 'target.unknown' })
    expect(agent.logged('tunnel.down')).toEqual([])
  })
})

function ownAddress(): string {
  // Any address of this machine that is not loopback; where there is none, one that nobody answers on.
  const all = Object.values(networkInterfaces()).flat()
  return all.find((own) => own?.family === 'IPv4' && !own.internal)?.address ?? '192.0.2.1'
}

describe('more to say than fits', () => {
  test('owners that do not fit the answer: refused, not shortened', async () => {
    using directory = new Directory()
    class Crowd extends ProcessScope {
      override async observeAccepted(dialled: FourTuple): Promise<Observation> {
        const one = { ...unseen('accepted'), exe: '/'.padEnd(900, 'x') }
        const observed = { ...one, others: Array.from({ length: 8 }, () => one) }
        return {
          ok: true,
          sighting: { observed, dialled, inodes: [], sights: [], complete: true, unreadable: 0 },
        }
      }
    }
    await using server = await listening(() => undefined)
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using _agent = running(config, { scope: new Crowd() })
    const held = await gateway.nextTunnel()
    await expect(openStream(held, 'plc')).rejects.toMatchObject({ code: 'target.unobserved' })
  })

  test('targets that do not fit the greeting follow on the control stream', async () => {
    using directory = new Directory()
    const targets = Array.from({ length: 200 }, (_, at) => `plc-${at}=lan:192.0.2.7:${at + 1}`)
    const config = await enrolled(gateway, directory, targets)
    await using _agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    expect(held.greeting['targets']).toEqual([])
    await holds(() => expect(held.reports[0]).toMatchObject({ type: 'targets' }))
    expect(held.reports[0]?.['targets']).toHaveLength(200)
  })
})
