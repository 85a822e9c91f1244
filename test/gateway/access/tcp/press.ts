/** A press with a program and registers behind an agent whose observations the test chooses, and a vendor with grants for both. */
import type { OpenedSession, Session } from '#api'
import {
  grantFor,
  openSession,
  startNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../../support/node.ts'
import { attach, echo, expecting, PLC, seen, type FakeAgent } from '../../../support/tunnels.ts'

const LISTENERS = { plc: seen(PLC, 'listener'), registers: seen(PLC, 'listener') }

export class Press implements AsyncDisposable {
  readonly node: TestNode
  readonly vendor: Person
  readonly #identity: DeviceIdentity
  agent: FakeAgent

  private constructor(node: TestNode, vendor: Person, identity: DeviceIdentity, agent: FakeAgent) {
    this.node = node
    this.vendor = vendor
    this.#identity = identity
    this.agent = agent
  }

  static async start(): Promise<Press> {
    const node = await startNode()
    const identity = await node.device('press-07', {
      plc: expecting(),
      registers: expecting(undefined, 'modbus'),
    })
    const [vendor, agent] = await Promise.all([
      node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      attach(node, identity, { listeners: LISTENERS }),
    ])
    for (const process of ['plc', 'registers'])
      await grantFor(vendor, node.admin, { device: 'press-07', process })
    return new Press(node, vendor, identity, agent)
  }

  /** The device dials again. */
  async attach(): Promise<FakeAgent> {
    return await attach(this.node, this.#identity, { listeners: LISTENERS })
  }

  /** What stands behind the processes before a test says otherwise. */
  reset(): void {
    this.agent.target = echo
    this.agent.answer = undefined
    this.agent.observed = seen(PLC)
  }

  async open(process = 'plc'): Promise<OpenedSession> {
    return await openSession(this.vendor, 'press-07', process)
  }
  async end(session: { readonly id: string }): Promise<Session> {
    return await this.vendor.ask<Session>('POST', `/sessions/${session.id}/end`)
  }
  async record(session: { readonly id: string }): Promise<Session> {
    return await this.vendor.ask<Session>('GET', `/sessions/${session.id}`)
  }
  async nothingOpen(): Promise<void> {
    await until('no stream is left on the device', () => this.agent.open() === 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent[Symbol.asyncDispose]()
    await this.node[Symbol.asyncDispose]()
  }
}
