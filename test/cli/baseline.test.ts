/** `device baseline`: what is shown is what is accepted, and drift is an exit code. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DeviceBaseline, Exposed } from '#api'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'
import { run } from './run.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await startFakeGateway()
})
afterAll(() => gateway[Symbol.asyncDispose]())

const HASH = 'a'.repeat(64)
const PATH = '/api/v1/devices/press-07/baseline'
const plc: Exposed = {
  process: 'plc',
  kind: 'tcp',
  programs: [
    {
      exe: '/opt/plc',
      sha256: 'b'.repeat(64),
      script_sha256: null,
      uid: 998,
      unit: 'plc.service',
      image: null,
    },
  ],
  listens: ['127.0.0.1:502'],
}
const hmi: Exposed = { process: 'hmi', kind: 'tcp', programs: [], listens: [] }
const fresh: DeviceBaseline = {
  device: 'press-07',
  accepted: null,
  current: { hash: HASH, at: 1, unreadable: 2, processes: [plc, hmi] },
  differences: [],
  drift: null,
}
const drifted: DeviceBaseline = {
  ...fresh,
  accepted: { hash: 'c'.repeat(64), at: 1, by: 'iss|oda', processes: [plc] },
  differences: [
    { process: 'plc', fact: 'exe', accepted: '/opt/old', current: '/opt/plc', drift: true },
  ],
  drift: true,
}

test('show: who listens, and where', async () => {
  gateway.answer(`GET ${PATH}`, { body: fresh })
  const ran = await run(gateway.home, 'device', 'baseline', 'show', 'press-07')
  expect(ran.code).toBe(0)
  expect(ran.out).toContain(HASH)
  expect(ran.out).toMatch(/plc +tcp +\/opt\/plc +bbbbbbbbbbbb +998 +plc\.service +127\.0\.0\.1:502/)
})

test('diff: each fact, and exit 1 where there is drift', async () => {
  gateway.answer(`GET ${PATH}`, { body: drifted })
  const ran = await run(gateway.home, 'device', 'baseline', 'diff', 'press-07')
  expect(ran.code).toBe(1)
  expect(ran.out).toMatch(/plc +exe +\/opt\/old +\/opt\/plc/)
  gateway.answer(`GET ${PATH}`, { body: { ...drifted, differences: [], drift: false } })
  expect((await run(gateway.home, 'device', 'baseline', 'diff', 'press-07')).code).toBe(0)
})

test('diff without a baseline says how to make one', async () => {
  gateway.answer(`GET ${PATH}`, { body: fresh })
  const ran = await run(gateway.home, 'device', 'baseline', 'diff', 'press-07')
  expect(ran.code).toBe(1)
  expect(ran.err).toContain('sallyport device baseline accept press-07')
})

test('accept: what was shown, by its hash, and who does not listen is pointed out', async () => {
  gateway.answer(`GET ${PATH}`, { body: fresh })
  gateway.answer(`POST ${PATH}`, { body: fresh })
  const ran = await run(gateway.home, 'device', 'baseline', 'accept', 'press-07', '--yes')
  expect(ran.code).toBe(0)
  expect(ran.err).toContain('/opt/plc')
  expect(ran.err).toContain('nobody listens for hmi now')
  expect(gateway.calls.at(-1)).toMatchObject({ method: 'POST', body: { hash: HASH } })
})

test('accept asks, and without anybody to ask changes nothing', async () => {
  const before = gateway.calls.filter(({ method }) => method === 'POST').length
  const ran = await run(gateway.home, 'device', 'baseline', 'accept', 'press-07')
  expect(ran.code).toBe(2)
  expect(gateway.calls.filter(({ method }) => method === 'POST')).toHaveLength(before)
})

test('accept of a hash that was shown earlier does not look again', async () => {
  const args = ['--hash', HASH, '--reason', 'as commissioned']
  const ran = await run(gateway.home, 'device', 'baseline', 'accept', 'press-07', ...args)
  expect(ran.code).toBe(0)
  expect(gateway.calls.at(-1)?.body).toEqual({ hash: HASH, reason: 'as commissioned' })
})

test('a device that has not told is not accepted', async () => {
  gateway.answer(`GET ${PATH}`, { body: { ...fresh, current: null } })
  const ran = await run(gateway.home, 'device', 'baseline', 'accept', 'press-07', '--yes')
  expect(ran.code).toBe(1)
  expect(ran.err).toContain('baseline.unseen')
})
