/** A zone that records, under the policy that comes with the product: its sessions open, with notice, and are kept. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { AddedAuditor, OpenedSession, Problem, Recording, Session } from '#api'
import { AuditError, identityOf, openSealed } from '#audit'
import { Scribe } from '../../../audit/scribe.ts'
import {
  grantFor,
  openSession,
  startNode,
  until,
  type LoggedEvent,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  PLC,
  seen,
  type FakeAgent,
} from '../../support/tunnels.ts'
import { siteOfOwn } from '../../support/zone.ts'

const site = siteOfOwn()
let node: TestNode
let vendor: Person
let second: Person
let agent: FakeAgent

beforeAll(async () => {
  node = await startNode({ config: site.config })
  const device = await node.device('press-07', { plc: expecting() })
  ;[vendor, second, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('second', { party: 'staff', roles: ['admin', 'engineer'] }),
    attach(node, device, { listeners: { plc: seen(PLC, 'listener') } }),
  ])
  agent.target = echo
  await grantFor(vendor, node.admin, { device: 'press-07', process: 'plc' })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
  site[Symbol.dispose]()
})

async function enrol(name: string): Promise<void> {
  const identity = identityOf(randomBytes(32))
  const { test: sealed } = await node.admin.ask<AddedAuditor>('POST', '/auditors', {
    name,
    recipient: identity.recipient.text,
  })
  const { plain } = openSealed(Buffer.from(sealed, 'base64'), [identity])
  await node.admin.ask('POST', `/auditors/${name}/confirm`, {
    secret: Buffer.from(plain).toString(),
  })
}

const of = ({ id }: OpenedSession | Session) =>
  node.events().filter(({ text }: LoggedEvent) => text.includes(id))
const codes = (session: OpenedSession) => of(session).map(({ code }) => code)

test('a zone that does not record opens a session without recording or notice', async () => {
  await enrol('anna')
  await enrol('bert')
  const session = await openSession(vendor, 'press-07', 'plc')
  expect(session.recording).toBeNull()
  expect(codes(session)).not.toContain('notify.session')
})

test('a zone that records ends what is not recorded; what opens then has its notice first, and is kept', async () => {
  const before = await openSession(vendor, 'press-07', 'plc')
  await site.zone({ recorded: true }, [node.admin, second])
  const ended = of(before).find(({ code }) => code === 'session.end')
  expect(ended?.text).toContain('policy now asks for a recording')

  const session = await openSession(vendor, 'press-07', 'plc')
  expect(session.recording).not.toBeNull()
  await using client = await Client.dial(node)
  const line = await client.line(session)
  line.write('all of it')
  await line.until('the echo', ({ text }) => text === 'all of it')
  await vendor.ask<Session>('POST', `/sessions/${session.id}/end`)
  await until('the recording ends', () => codes(session).includes('recording.end'))
  const told = codes(session)
  expect(told.filter((code) => code === 'notify.session')).toHaveLength(1)
  expect(told.indexOf('notify.session')).toBeLessThan(told.indexOf('session.start'))
  expect(told).toContain('recording.part')
  const notice = of(session).find(({ code }) => code === 'notify.session')
  expect(notice?.event).toMatchObject({
    class_uid: 2004,
    severity_id: 3,
    actor: { user: { name: vendor.email } },
    unmapped: { sallyport: { device: 'press-07', process: 'plc', detail: { recorded: true } } },
  })
  const kept = await node.admin.ask<{ items: Recording[] }>('GET', '/recordings')
  expect(kept.items.map(({ session: id }) => id)).toEqual([session.id])
})

test('where the log does not take the notice, nothing opens', async () => {
  // oxlint-disable-next-line typescript/unbound-method -- called with the scribe as `this` below
  const write = Scribe.prototype.write
  const refusing = vi.spyOn(Scribe.prototype, 'write').mockImplementation(function (
    this: Scribe,
    event,
  ) {
    if (event.code === 'notify.session') throw new AuditError('log.full', 'the disk is full')
    return write.call(this, event)
  })
  const from = node.size()
  const refused = await vendor.call<Problem>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
  })
  expect([refused.status, refused.body.code]).toEqual([503, 'log.unavailable'])
  expect(node.events(from).map(({ code }) => code)).not.toContain('session.start')
  expect((await node.health()).sessions).toBe(0)
  refusing.mockRestore()
  expect((await openSession(vendor, 'press-07', 'plc')).recording).not.toBeNull()
})
