/** What a person reads of a rollout whose devices take no updates. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'
import { run } from './run.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await startFakeGateway()
})
afterAll(() => gateway[Symbol.asyncDispose]())

const id = `o_${'0'.repeat(26)}`
const rollout = {
  id,
  version: '0.2.0',
  sha256: 'ab'.repeat(32),
  not_after: 1_900_000_000,
  zone: null,
  stages: [5, 100],
  percent: 5,
  stage_at: 1_800_000_000,
  soak_s: 0,
  max_failures: 0,
  state: 'running',
  reason: 'service',
  by: 'oda',
  at: 1_800_000_000,
}
const device = (name: string, state: string, code: string | null, more: object = {}) => ({
  name,
  state,
  code,
  failure: false,
  at: 1_800_000_000,
  ...more,
})

async function shown(...items: ReturnType<typeof device>[]): Promise<string> {
  gateway.answer(`GET /api/v1/rollouts/${id}`, { body: rollout })
  gateway.answer(`GET /api/v1/rollouts/${id}/devices`, { body: { items, next: null } })
  const ran = await run(gateway.home, 'rollout', 'status', id)
  expect([ran.code, ran.err]).toEqual([0, ''])
  return ran.out
}

test('devices that take none are counted, with why, and what is done in their place', async () => {
  const out = await shown(
    device('a', 'refused', 'update.unpinned'),
    device('b', 'refused', 'update.unsupported'),
    device('c', 'starting', null),
  )
  expect(out).toMatch(
    /^devices that do not take it, and are not waited for: 2 \(update\.unpinned, update\.unsupported\); .*in their place$/m,
  )
  expect(out).toMatch(/^c +starting/m)
})

test('a refusal that counts against the update is none of these', async () => {
  const out = await shown(device('a', 'refused', 'update.signature', { failure: true }))
  expect(out).not.toContain('do not take it')
})

test('what is installed on a device stands beside it, where the device says so', async () => {
  const out = await shown(
    device('a', 'updated', null, { kind: 'executable', node: '26.10.0' }),
    device('b', 'updated', null, { kind: 'file', node: '26.12.1' }),
    device('c', 'updated', null, { kind: null, node: null }),
    device('d', 'updated', null),
  )
  expect(out).toMatch(/^a +updated .*executable, Node 26\.10\.0 /m)
  expect(out).toMatch(/^b +updated .*file, Node 26\.12\.1 /m)
  expect(out).not.toMatch(/^[cd] .*(?:Node|file|executable)/m)
})
