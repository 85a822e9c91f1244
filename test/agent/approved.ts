/** A device that asks two keys: its people, what they signed, and the other end of its tunnel. */
import { expect, onTestFinished } from 'vitest'
import { pinApprovers } from '#agent'
import { hashOf, type ApproverSet } from '#approval'
import type { TunnelRefused } from '#tunnel'
import { Forwarder, type ForwardOptions } from '../../agent-tunnel/agent/forward.ts'
import { openTwoKeys } from '../../agent-tunnel/agent/two-keys.ts'
import { softKey, type SoftKey } from '../support/authenticator.ts'
import { HandClock } from '../support/clock.ts'
import { Directory } from './device.ts'
import { reached, sighting } from './reached.ts'
import { statementOf } from '../support/statement.ts'

const ORIGIN = 'https://gw.plant.example:8443'
export const NOW = 1_780_000_000
export const oda = softKey(ORIGIN)
const olaf = softKey(ORIGIN)
export const thief = softKey(ORIGIN)
export const approver = (person: string, key: SoftKey) => ({
  person,
  credential: key.id,
  key: key.signing,
})
export const SET: ApproverSet = {
  v: 1,
  tenant: 'main.sallyport.internal',
  device: 'press-07',
  seq: 1,
  quorum: 1,
  relying_party: { id: 'gw.plant.example', origins: [ORIGIN] },
  approvers: [approver('oda', oda), approver('olaf', olaf)],
  modbus: [],
}
export const STATEMENT = statementOf(NOW, {
  id: 'g_00000000000000000000000001',
  requester: 'https://gw/oidc|a',
  vendor: 'Pumpworks',
})
export const text = (set: object) => JSON.stringify(set)
export const signed = (hash: string, ...by: SoftKey[]) =>
  by.map((key) => key.assertion(Buffer.from(hash, 'hex').toString('base64url')))

export function device() {
  const directory = new Directory()
  onTestFinished(() => directory[Symbol.dispose]())
  return { dataDir: directory.path, device: SET.device, tenant: SET.tenant }
}

/** A device whose owner pinned SET, its program, and the tunnel's other end. */
export async function pinned() {
  const place = device()
  pinApprovers(place, text(SET), 'set.json')
  let dialled = 0
  const { port, agent, gateway } = await reached(() => void dialled++)
  const clock = new HandClock()
  let system = NOW * 1000
  const logged: string[] = []
  const says: { owner: object } = { owner: { code: 'owner.asked' } }
  const serve = () => {
    const twoKeys = openTwoKeys(place, { system: () => system, monotonic: clock, log: () => {} })
    const options = {
      targets: new Map([
        ['plc', { kind: 'tcp', endpoint: { address: '127.0.0.1', port } }],
        ['asked', { kind: 'tcp', endpoint: { address: '127.0.0.1', port }, consent: true }],
      ]),
      consents: { ask: async () => says.owner },
      scope: {
        observeAccepted: async () => ({ ok: true, sighting }),
        recheck: async () => new Promise(() => {}),
      },
      clock,
      acceptDeadlineMs: 1000,
      log: (_: string, code: string) => void logged.push(code),
      ownerChanged: () => {},
      twoKeys,
    } as unknown as ForwardOptions
    const forwarder = new Forwarder(options)
    agent.onOpen = (offer) => void forwarder.serve(offer)
  }
  serve()
  const open = async (more: object, remaining_ms = 86_400_000) => {
    const ask = { v: 1, session: `s_${'0'.repeat(26)}`, process: 'plc', remaining_ms, ...more }
    return gateway.open('tcp', Buffer.from(JSON.stringify(ask)))
  }
  return {
    place,
    says,
    clock,
    open,
    /** Resolves once the agent has said so, that often. */
    told: async (code: string, times = 1) =>
      await expect.poll(() => logged.filter((one) => one === code).length).toBe(times),
    restart: serve,
    pass: (seconds: number) => {
      system += seconds * 1000
    },
    dialled: () => dialled,
    refusal: async (more: object) =>
      open(more).then(
        () => 'opened',
        (error: unknown) => (error as TunnelRefused).code,
      ),
  }
}

export const grant = (statement = STATEMENT, by: readonly SoftKey[] = [oda]) => ({
  grant: { statement, assertions: signed(hashOf(statement), ...by) },
})
