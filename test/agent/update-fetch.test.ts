/** The octets of an update over TLS: what a gateway may answer, and what becomes of it. */
import { hash } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { systemClock } from '#tunnel'
import type { Update } from '#update'
import { DeviceClock } from '../../agent-tunnel/agent/clock.ts'
import { fetchUpdate } from '../../agent-tunnel/agent/update/fetch.ts'
import { configOf, Directory } from './device.ts'
import { FakeGateway } from './gateway.ts'

const BUNDLE = Buffer.from('an agent')
const sha256 = hash('sha256', BUNDLE, 'hex')

let gateway: FakeGateway
let directory: Directory
beforeAll(async () => {
  directory = new Directory()
  gateway = await FakeGateway.start()
})
afterAll(async () => {
  await gateway[Symbol.asyncDispose]()
  directory[Symbol.dispose]()
})
beforeEach(() => {
  gateway.serving = undefined
  gateway.files.clear()
})

async function fetched(): Promise<Uint8Array> {
  const update = { sha256, size: BUNDLE.length } as Update
  const clock = new DeviceClock({
    monotonic: systemClock,
    system: () => Date.now(),
    dataDir: directory.path,
  })
  const times = { now: () => clock.now(), system: () => Date.now() }
  const dial = { config: configOf(gateway, directory), anchors: null, ...times }
  return await fetchUpdate(update, dial, new AbortController().signal)
}

test('what the manifest names comes whole', async () => {
  gateway.files.set(sha256, BUNDLE)
  expect(Buffer.from(await fetched())).toEqual(BUNDLE)
})

test('a gateway that serves others says when to come again', async () => {
  gateway.files.set(sha256, BUNDLE)
  gateway.serving = '42'
  await expect(fetched()).rejects.toMatchObject({ name: 'GatewayBusy', waitMs: 42_000 })
})

test.for([
  ['is not there', undefined, /answered 404/],
  ['is longer', Buffer.from('an agent and more'), /longer/],
  ['is shorter', Buffer.from('an'), /shorter/],
  ['is another', Buffer.from('an Agent'), /not what was signed/],
] as const)('what %s is not kept', async ([, file, says]) => {
  if (file !== undefined) gateway.files.set(sha256, file)
  await expect(fetched()).rejects.toThrow(says)
})
