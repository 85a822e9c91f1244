/** A device tells who listens every few seconds; nobody is refused for what it saw before, when it can be asked to look. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { grantFor, openSession, startNode, type Person, type TestNode } from '../../support/node.ts'
import { attach, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'

const target = (exe: string | null) => ({
  process: 'plc',
  kind: 'tcp',
  listener: exe === null ? null : seen(exe, 'listener'),
})

let node: TestNode
let vendor: Person
let agent: FakeAgent
/** What listens when the device looks, and how often it was asked to. */
let listening: string | null
let looks = 0

beforeAll(async () => {
  node = await startNode()
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const operator = await node.person('oda', { party: 'staff', roles: ['operator'] })
  const device = await node.device('press-07', { plc: expecting() })
  agent = await attach(node, device, {
    targets: [target('/usr/bin/impostor')],
    look: () => {
      looks++
      return [target(listening)]
    },
  })
  await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(() => (looks = 0))

const refusal = async () => {
  const asked = { device: 'press-07', process: 'plc' }
  const { status, body } = await vendor.call('POST', '/sessions', asked)
  return [status, body.denials?.map(({ code }) => code)]
}

test('another program listens still: refused, after one look', async () => {
  listening = '/usr/bin/impostor'
  expect(await refusal()).toEqual([403, ['process.mismatch']])
  expect(looks).toBe(1)
})

test('nobody listens any more: refused for that, which a look found', async () => {
  listening = null
  expect(await refusal()).toEqual([403, ['process.unobserved']])
})

test('the right program was put back: let in, and asked of whom it is known no look is asked for', async () => {
  listening = PLC
  await openSession(vendor, 'press-07', 'plc')
  expect(looks).toBe(1)
  await openSession(vendor, 'press-07', 'plc')
  expect(looks).toBe(1)
})
