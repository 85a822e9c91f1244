/** A node whose log is rotated while it serves: sessions go on, nobody who asks is refused, and whoever kept a head follows. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { joinOf, readLog, verifyEpochs, type EpochedLog } from '#audit'
import type { RotationStatus, ShownHead } from '#api'
import { HeadKeeper } from '#heads'
import { Rotation } from '../../gateway/rotation.ts'
import { credentialsDirectory, saveCredentials } from '../../cli/login/index.ts'
import { run, type Ran } from '../cli/run.ts'
import { grantFor, openSession, startNode, TENANT, until, type TestNode } from '../support/node.ts'
import { attach, Client, expecting, PLC, seen, type FakeAgent } from '../support/tunnels.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-rotate-live-'))
const data = join(home, 'gateway')
const log = join(data, 'log', 'gw1')
let node: TestNode

const rotate = (...flags: string[]): Promise<Ran> =>
  run(home, '--json', 'audit', 'rotate', ...flags)
const origin = (epoch: number): string => `${TENANT}/audit/gw1/${epoch}`
const vkeys = (name: string): string[] => readFileSync(join(data, name), 'utf8').trim().split('\n')

interface Told {
  readonly code: string
  readonly text: string
  readonly message: string
}
const events = (epoch: number): Told[] =>
  [...readLog(join(log, String(epoch)), origin(epoch))].map(({ body }) => {
    const text = Buffer.from(body).toString()
    const { message } = JSON.parse(text) as { readonly message: string }
    return { code: joinOf(body)?.code ?? '', text, message }
  })

beforeAll(async () => {
  mkdirSync(data)
  node = await startNode({ data })
  await saveCredentials(credentialsDirectory({ SALLYPORT_HOME: home }), node.admin.credentials)
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

test('who may not rotate does not, and that is in the log', async () => {
  const vendor = await node.person('vito', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  expect(await vendor.call('POST', '/audit/rotate', {})).toMatchObject({ status: 403 })
  expect(await vendor.call('GET', '/audit/rotate')).toMatchObject({ status: 403 })
  expect(events(1).map(({ message }) => message)).toContainEqual(
    expect.stringMatching(/^audit:rotate log .* refused$/),
  )
  expect(JSON.parse((await rotate('--status')).out)).toMatchObject({ state: 'none', ended: null })
})

/** What the gateway shows a device of its log: the answer to what it asks. */
function asking(agent: FakeAgent): (ask: object) => Promise<ShownHead> {
  const shown: ShownHead[] = []
  let rest = ''
  agent.control.onData = (chunk) => {
    agent.control.consumed(chunk.length)
    const lines = (rest + Buffer.from(chunk).toString()).split('\n')
    rest = lines.pop() ?? ''
    for (const text of lines) {
      const value = JSON.parse(text) as ShownHead & { readonly type: string }
      if (value.type === 'log') shown.push(value)
    }
  }
  return async (ask) => {
    const before = shown.length
    agent.report({ type: 'log', ...ask })
    return await until('the log is shown', () => shown[before])
  }
}

test('a running node is rotated under load: nobody is refused, the session goes on, every witness follows, all is proven', async () => {
  const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'pm' })
  const device = await node.device('press-07', { plc: expecting() })
  await using agent = await attach(node, device, { listeners: { plc: seen(PLC, 'listener') } })
  await grantFor(vendor, node.admin, { device: 'press-07', process: 'plc' })
  const session = await openSession(vendor, 'press-07', 'plc')
  await using client = await Client.dial(node)
  const line = await client.line(session)
  line.write('before')
  await line.until('the echo', ({ text }) => text === 'before')
  const ask = asking(agent)
  const keeper = new HeadKeeper(join(home, 'heads'), () => Date.now())
  const first = await ask({ size: 0 })
  expect(keeper.see(first)).toEqual({ kind: 'first' })
  expect((await run(home, 'audit', 'witness', 'check')).code).toBe(0)

  // Whoever reads the log makes an event of it, which is durable before the answer.
  let [stop, answered] = [false, 0]
  const statuses = new Set<number>()
  const caller = async (): Promise<void> => {
    while (!stop) {
      const { status } = await node.admin.call('GET', '/audit/events?from=0&limit=1')
      statuses.add(status)
      answered++
    }
  }
  const readings = (epoch: number): number =>
    events(epoch).filter(({ message }) => message.startsWith('audit:read')).length
  const from = readings(1)
  const callers = Array.from({ length: 4 }, caller)
  await until('the node is busy', () => answered > 20)
  const ran = await rotate()
  const at = answered
  await until('the node goes on', () => answered > at + 20)
  stop = true
  await Promise.all(callers)

  expect(ran.code, ran.err).toBe(0)
  const status = JSON.parse(ran.out) as RotationStatus
  expect(status).toMatchObject({ state: 'done', ended: { origin: origin(1) }, origin: origin(2) })
  expect(status.ended?.note).toBe(readFileSync(join(log, '1', 'checkpoint'), 'utf8'))
  expect([...statuses]).toEqual([200])
  // The polls of the command are readings too.
  expect(readings(1) - from + readings(2)).toBeGreaterThanOrEqual(answered)
  // Who asked stands before the act, decided.
  const messages = events(1).map(({ message }) => message)
  expect(messages.findIndex((one) => /^audit:rotate log .* allowed$/.test(one))).toBeGreaterThan(0)
  expect(events(1).at(-1)).toMatchObject({ code: 'log.epoch_end' })
  expect(events(1).at(-1)?.text).toContain(node.admin.email)
  for (const name of ['log-keys.txt', 'log-keys-1.txt'])
    expect(await verifyEpochs({ directory: log, verifierKeys: vkeys(name) }), name).toMatchObject({
      outcome: 'proven',
      epochs: [{ epoch: 1 }, { epoch: 2 }],
    })
  expect(existsSync(join(data, 'keys', 'log-ed25519.key.pem'))).toBe(false)
  // The newest mark of the policy is in the newest epoch: the next start needs no earlier one.
  expect(events(2).map(({ code }) => code)).toContain('policy.activate')

  line.write('behind')
  await line.until('the echo', ({ text }) => text.endsWith('behind'))
  const head = Number(first.note.split('\n')[1])
  const over = await ask({ size: head })
  expect(keeper.see(over)).toEqual({ kind: 'followed' })
  // One of a release before asks about the epoch it was greeted with, of which it now has nothing.
  const again = await ask({ size: 0 })
  expect(keeper.see(again)).toMatchObject({ kind: expect.stringMatching(/^(same|grew)$/) })
  const size = keeper.held(origin(2))?.size ?? 0
  expect(keeper.see(await ask({ size }))).toMatchObject({
    kind: expect.stringMatching(/^(same|grew)$/),
  })
  const check = await run(home, 'audit', 'witness', 'check')
  expect(check.code, check.err).toBe(0)
  expect(check.out).toMatch(/^the log was rotated/)
  expect((await node.health()).parts).toMatchObject({ log: true })

  await vendor.ask('POST', `/sessions/${session.id}/end`)
  await until('the end is recorded', () =>
    events(2).find(({ code, text }) => code === 'session.end' && text.includes(session.id)),
  )
})

test('the next start goes on in the newest epoch, also without the folder of the one before', async () => {
  await node.stop()
  rmSync(join(log, '1'), { recursive: true })
  node = await startNode({ data, bare: true, port: node.port })
  expect(await verifyEpochs({ directory: log, verifierKeys: vkeys('log-keys.txt') })).toMatchObject(
    { outcome: 'proven', epochs: [{ epoch: 2 }] },
  )
  expect(events(2).filter(({ code }) => code === 'node.start')).toHaveLength(1)
})

test('what comes behind a rotation may fail: the last head is said all the same, and why', async () => {
  const reported: string[] = []
  const ended = {
    origin: 'o/1',
    epoch: 1,
    directory: '',
    vkeys: [],
    last: { size: 3, root: 'r', note: 'n' },
  }
  const parts = {
    log: {
      origin: 'o/2',
      vkeys: [],
      ended: [],
      rotate: async () => ({ ended, epoch: 2, resumed: false, kept: new Error('read-only') }),
    } as unknown as EpochedLog,
    data: home,
    now: () => 5_000,
    report: (_error: unknown, what: string) => reported.push(what),
    policy: { remember: async () => {} },
  }
  const rotation = new Rotation(parts)
  const by = { uid: 'i|olga', party: 'staff' } as const
  expect(rotation.begin(by)).toMatchObject({ state: 'running', began: 5 })
  expect(() => rotation.begin(by)).toThrow('being rotated already')
  await rotation.idle()
  expect(rotation.status).toMatchObject({
    state: 'failed',
    ended: { origin: 'o/1', events: 3, note: 'n' },
    origin: 'o/2',
    why: { code: 'rotate.unfinished', detail: 'read-only' },
  })
  expect(reported).toEqual(['the audit log could not be rotated to the end'])
})
