/** What the tests of recordings share: a node with a press that speaks five protocols, its vendor and its auditor. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import type { AddedAuditor, Auditor, OpenedSession, Recording, Session } from '#api'
import { compare, findParts, identityOf, openSealed, readTrack, type Identity } from '#audit'
import {
  grantFor,
  openSession,
  startNode,
  type LoggedEvent,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { attach, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'

const KINDS = { plc: 'tcp', registers: 'modbus', shell: 'ssh', hmi: 'http', term: 'spawn' } as const
export const anna = identityOf(randomBytes(32))
export const bert = identityOf(randomBytes(32))

/** The facts of an event that are the product's own. */
export const own = ({ event }: LoggedEvent) =>
  (event as { unmapped?: { sallyport?: Record<string, unknown> } }).unmapped?.sallyport ?? {}

async function webApp(): Promise<Server> {
  const hmi = createServer((request, response) => {
    request.resume().once('end', () => {
      response.writeHead(request.url?.startsWith('/login') === true ? 303 : 200, {
        'content-type': 'text/html; charset=utf-8',
        'set-cookie': 'app=topsecret',
      })
      response.end('<p>hello')
    })
  })
  hmi.listen(0, '127.0.0.1')
  await once(hmi, 'listening')
  return hmi
}

/** A running node; the vendor has a grant for each process of its press. */
export class Plant {
  readonly node: TestNode
  readonly vendor: Person
  readonly auditor: Person
  readonly agent: FakeAgent
  readonly hmi: Server

  private constructor(
    node: TestNode,
    hmi: Server,
    [vendor, auditor, agent]: readonly [Person, Person, FakeAgent],
  ) {
    this.node = node
    this.hmi = hmi
    this.vendor = vendor
    this.auditor = auditor
    this.agent = agent
  }

  /** Starts it with these keys of auditors, each confirmed. */
  static async start(
    auditors: Readonly<Record<string, Identity>> = { anna, bert },
  ): Promise<Plant> {
    const [node, hmi] = await Promise.all([startNode(), webApp()])
    const processes = Object.entries(KINDS)
    const identity = await node.device(
      'press-07',
      Object.fromEntries(processes.map(([name, kind]) => [name, expecting(PLC, kind)])),
    )
    const listeners = Object.fromEntries(processes.map(([name]) => [name, seen(PLC, 'listener')]))
    const people = await Promise.all([
      node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      node.person('aude', { party: 'staff', roles: ['auditor'] }),
      attach(node, identity, { listeners }),
    ])
    const plant = new Plant(node, hmi, people)
    for (const [process] of processes)
      await grantFor(plant.vendor, node.admin, { device: 'press-07', process })
    for (const [name, key] of Object.entries(auditors)) await plant.enrol(name, key)
    return plant
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hmi.closeAllConnections()
    this.hmi.close()
    await this.agent[Symbol.asyncDispose]()
    await this.node[Symbol.asyncDispose]()
  }

  /** Names an auditor's key, and shows that it opens what is sealed to it. */
  async enrol(name: string, { recipient, secret }: Identity): Promise<void> {
    const { test: sealed } = await this.node.admin.ask<AddedAuditor>('POST', '/auditors', {
      name,
      recipient: recipient.text,
    })
    const { plain } = openSealed(Buffer.from(sealed, 'base64'), [{ recipient, secret }])
    await this.node.admin.ask<Auditor>('POST', `/auditors/${name}/confirm`, {
      secret: Buffer.from(plain).toString(),
    })
  }

  /** A session of the vendor, ended after the test. */
  async open(process: keyof typeof KINDS): Promise<OpenedSession> {
    const session = await openSession(this.vendor, 'press-07', process)
    onTestFinished(async () => void (await this.vendor.call('POST', `/sessions/${session.id}/end`)))
    return session
  }

  async end({ id }: OpenedSession): Promise<Session> {
    return await this.vendor.ask<Session>('POST', `/sessions/${id}/end`)
  }

  /** Where recordings lie. */
  directory(): string {
    return join(this.node.data, 'recordings')
  }

  /** What the log says of a session. */
  events(session: OpenedSession): LoggedEvent[] {
    return this.node.events().filter(({ event }) => {
      const { metadata } = event as { metadata?: { correlation_uid?: string } }
      return metadata?.correlation_uid === session.id
    })
  }

  /** The sealed parts as the API gives them, put together by `who`, and checked against the log on the way. */
  async read(session: OpenedSession, who: Identity): Promise<Buffer> {
    const recording = await this.auditor.ask<Recording>('GET', `/recordings/${session.id}`)
    const told = this.events(session)
    const closing = told.find(({ code }) => code === 'recording.end')
    if (closing === undefined || recording.end === null) throw new Error('it has no end')
    const logged = {
      parts: recording.parts,
      end: {
        idx: closing.idx,
        parts: Number(own(closing)['parts']),
        root: String(own(closing)['root']),
      },
    }
    expect(compare(logged, await findParts(this.directory(), session.id))).toEqual([])
    expect(told.filter(({ code }) => code === 'recording.part').map(({ idx }) => idx)).toEqual(
      recording.parts.map(({ idx }) => idx),
    )
    const sealed = recording.parts.map((part) => ({
      ...part,
      sealed: readFileSync(
        join(this.directory(), session.id, `001-${String(part.part).padStart(6, '0')}.age`),
      ),
    }))
    return Buffer.from(readTrack(session.id, sealed, [who]))
  }
}
