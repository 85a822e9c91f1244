/** A look at the processes that never comes back holds nothing open: it ends what it was for. */
import { expect, test } from 'vitest'
import type { CloseReason, Tunnel, TunnelRefused } from '#tunnel'
import { Forwarder } from '../../agent-tunnel/agent/forward.ts'
import type { ForwardOptions } from '../../agent-tunnel/agent/forward.ts'
import { HandClock } from '../support/clock.ts'
import { reached, sighting } from './reached.ts'

const never = (): Promise<never> => new Promise(() => {})
const turn = () => new Promise((resolve) => setImmediate(resolve))

async function opened(
  scope: object,
): Promise<{ gateway: Tunnel; clock: HandClock; open: Promise<unknown>; looks: () => number }> {
  const { port, agent, gateway } = await reached()
  let looks = 0
  const counted = Object.fromEntries(
    Object.entries(scope).map(([name, look]) => [
      name,
      (...args: unknown[]) => (looks++, look(...args)),
    ]),
  )
  const clock = new HandClock()
  const options = {
    targets: new Map([['plc', { kind: 'tcp', endpoint: { address: '127.0.0.1', port } }]]),
    scope: counted,
    clock,
    acceptDeadlineMs: 1000,
    log: () => {},
    ownerChanged: () => {},
  } as unknown as ForwardOptions
  const forwarder = new Forwarder(options)
  agent.onOpen = (offer) => void forwarder.serve(offer)
  const ask = { v: 1, session: `s_${'0'.repeat(26)}`, process: 'plc', remaining_ms: 600_000 }
  const open = gateway.open('tcp', Buffer.from(JSON.stringify(ask)))
  open.catch(() => {})
  return { gateway, clock, open, looks: () => looks }
}

test('while a connection is opened: refused as unobserved', async () => {
  const { clock, open, looks } = await opened({ observeAccepted: never })
  while (looks() === 0) await turn()
  clock.pass(11_000)
  const refusal = (await open.catch((error: unknown) => error)) as TunnelRefused
  expect(refusal.code).toBe('target.unobserved')
})

test('while a connection is open: cut, not trusted on', async () => {
  const { clock, open, looks } = await opened({
    observeAccepted: async () => ({ ok: true, sighting }),
    recheck: never,
  })
  const stream = (await open) as { onClose: (why: CloseReason) => void }
  const closed = new Promise<CloseReason>((resolve) => (stream.onClose = resolve))
  clock.pass(2000)
  while (looks() < 2) await turn()
  clock.pass(10_000)
  expect((await closed).code).toBe('process.changed')
})
