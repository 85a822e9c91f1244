/** Native clients: who holds a session is proven per connection, and what passes is held to what was granted. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { OpenedSession } from '#api'
import { PolicyEngine, type Obligations } from '#policy'
import {
  grantFor,
  openSession,
  soon,
  startNode,
  until,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  Line,
  refusalOf,
  seen,
  type FakeAgent,
} from '../../support/tunnels.ts'

let node: TestNode
let vendor: Person
let agent: FakeAgent

beforeAll(async () => {
  node = await startNode()
  const identity = await node.device('press-07', {
    plc: expecting(),
    registers: expecting(undefined, 'modbus'),
  })
  ;[vendor, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    attach(node, identity, {
      listeners: { plc: seen('/usr/bin/plc-runtime', 'listener'), registers: seen('/usr/bin/plc-runtime', 'listener') },
    }),
  ])
  await grantFor(vendor, node.admin, { device: 'press-07', process: 'plc' })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

test('bytes pass both ways', async () => {
  const session = await openSession(vendor, 'press-07', 'plc')
  await using client = await Client.dial(node)
  const line = await client.line(session)
  line.write('hello')
  await line.until('the echo', ({ text }) => text === 'hello')
})
