/** An update on its way out, and the tunnel that its start is told by: an agent in this process, and a gateway. */
import { generateKeyPairSync, hash } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Shelf } from '#boot'
import { signUpdate, updateKeyOf } from '#update'
import { VERSION } from '../../agent-tunnel/agent/version.ts'
import { Directory, enrolled, running } from './device.ts'
import { FakeGateway, holds, type Held } from './gateway.ts'

const { privateKey } = generateKeyPairSync('ed25519')
const key = updateKeyOf(privateKey)!
const BUNDLE = Buffer.from('an agent')
const sha256 = hash('sha256', BUNDLE, 'hex')
const kept = { version: '0.2.0', sha256 }

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
  gateway.files.set(sha256, BUNDLE)
})
afterAll(async () => await gateway[Symbol.asyncDispose]())

/** An agent that takes updates, at a gateway whose welcome says this, too. */
async function agentAt(directory: Directory, welcome: object) {
  const told = { device: 'press-07', gateway: 'gw1', epoch: 1, updates: 1, ...welcome }
  gateway.welcome = () => ({ ...told, now_ms: Date.now() })
  const config = await enrolled(gateway, directory)
  const shelf = new Shelf(config.dataDir)
  shelf.pin([key])
  let restarts = 0
  const started = { installed: VERSION, running: null, kind: 'file' } as const
  const agent = running(config, { started, onRestart: () => restarts++ })
  return { agent, shelf, restarts: () => restarts }
}

const say = ({ control }: Held, message: object) =>
  control.write(Buffer.from(`${JSON.stringify({ type: 'update', rollout: 'r_1', ...message })}\n`))

function offer(held: Held): void {
  const notAfter = Math.floor(Date.now() / 1000) + 3600
  const facts = { size: BUNDLE.length, from: VERSION, node: '26.0.0', health: 300, notAfter }
  say(held, { act: 'offer', manifest: signUpdate({ ...kept, ...facts }, privateKey) })
}

/** What it said of `starting`, while it was taking it, on that tunnel. */
const starts = ({ reports }: Held) =>
  reports.filter(({ taking }) => taking === 'r_1').map(({ starting }) => starting)

test('a start that was told on a tunnel that ended is told on the next one, and made when it was heard there', async () => {
  using directory = new Directory()
  const { agent, shelf, restarts } = await agentAt(directory, { starts: 1 })
  await using _agent = agent
  const first = await gateway.nextTunnel()
  offer(first)
  await holds(() => expect(starts(first)).toEqual([null, 'r_1']))
  first.tunnel.close('test.over')
  const second = await gateway.nextTunnel()
  await holds(() => expect(starts(second).at(-1)).toBe('r_1'))
  // First that it waits: who was told of a start looks for it no more.
  expect(starts(second)[0]).toBeNull()
  expect([restarts(), shelf.state(VERSION).trial]).toEqual([0, null])
  say(second, { act: 'heard' })
  await holds(() => expect(restarts()).toBe(1))
  expect(shelf.state(VERSION).trial).toMatchObject({ ...kept, rollout: 'r_1' })
})

test('what was fetched while the tunnel was gone waits for one, also for a gateway that answers no start', async () => {
  using directory = new Directory()
  const { agent, shelf, restarts } = await agentAt(directory, {})
  await using _agent = agent
  const first = await gateway.nextTunnel()
  gateway.serving = '1'
  offer(first)
  await holds(() => expect(agent.logged('update.not_fetched')).not.toEqual([]))
  gateway.refuses = () => 'peer.unknown'
  first.tunnel.close('test.over')
  await holds(() => expect(agent.logged('tunnel.down')).toHaveLength(1))
  gateway.serving = undefined
  await holds(() => expect(shelf.isWhole(kept)).toBe(true))
  const tries = agent.logged('tunnel.not_up').length
  await holds(() => expect(agent.logged('tunnel.not_up').length).toBeGreaterThan(tries))
  expect([restarts(), shelf.state(VERSION).trial]).toEqual([0, null])
  gateway.refuses = () => undefined
  const second = await gateway.nextTunnel()
  await holds(() => expect(restarts()).toBe(1))
  expect(starts(second).at(-1)).toBe('r_1')
})
