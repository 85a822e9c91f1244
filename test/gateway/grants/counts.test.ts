/** A grant that may be used so often, or carry so much: counted before a session opens, and cut when it is reached. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Grant, OpenedSession, Problem, Session } from '#api'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteSessionStore } from '../../../gateway/store/sqlite/sessions.ts'
import { startNode, until, type Answer, type Person, type TestNode } from '../../support/node.ts'
import { oblige } from '../../support/policy.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  PLC,
  seen,
  type FakeAgent,
} from '../../support/tunnels.ts'

let node: TestNode
let vendor: Person
let agent: FakeAgent

beforeAll(async () => {
  node = await startNode()
  const identity = await node.device('press-07', { plc: expecting() })
  ;[vendor, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    attach(node, identity, { listeners: { plc: seen(PLC, 'listener') } }),
  ])
  agent.target = echo
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 600, reason: 'service' }
async function granted(limits: object): Promise<Grant> {
  const asked = await vendor.ask<Grant>('POST', '/grants', { ...WANTED, ...limits })
  return await node.admin.ask<Grant>('POST', `/grants/${asked.id}/approve`, { hash: asked.hash })
}
const use = async (grant: Grant) =>
  await vendor.call<OpenedSession & Problem>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
    grant: grant.id,
  })
const read = async (grant: Grant) => await vendor.ask<Grant>('GET', `/grants/${grant.id}`)
const end = async ({ body }: Answer<OpenedSession>) =>
  await vendor.ask<Session>('POST', `/sessions/${body.id}/end`)
const told = ({ status, body }: Answer<Problem>) => [status, body.code]

describe('so many sessions', () => {
  test('is in the statement, shown, and counted in the log', async () => {
    const from = node.size()
    const grant = await granted({ max_uses: 2 })
    expect(grant).toMatchObject({ max_uses: 2, uses: 0, max_bytes: null })
    const first = await use(grant)
    await end(first)
    await end(await use(grant))
    expect(await read(grant)).toMatchObject({ state: 'active', uses: 2 })
    const uses = node.events(from).filter(({ code }) => code === 'grant.use')
    expect(uses.map(({ message }) => message)).toEqual([
      'grant used for the first time',
      'grant used once more',
    ])
    expect(uses[1]?.text).toContain('"uses":2')
    const third = await use(grant)
    expect(told(third)).toEqual([403, 'grant.used_up'])
    expect(third.body.detail).toBe(`grant ${grant.id} has let in 2 of 2 sessions`)
    const [deny] = node.events(from).filter(({ code }) => code === 'session.deny')
    expect(deny?.text).toContain('grant.used_up')
  })

  test('two at once for the last one, five times: one gets in, and the log tells of no other use', async () => {
    for (let round = 0; round < 5; round++) {
      const from = node.size()
      const grant = await granted({ max_uses: 1 })
      const replies = await Promise.all([use(grant), use(grant)])
      const [opened, refused] = replies.toSorted((a, b) => a.status - b.status)
      expect([opened?.status, refused?.status, refused?.body.code]).toEqual([
        201,
        403,
        'grant.used_up',
      ])
      expect(node.events(from).filter(({ code }) => code === 'grant.use')).toHaveLength(1)
      // What is open goes on.
      if (opened !== undefined) expect((await end(opened)).id).toBe(opened.body.id)
    }
  })

  test('the gateway fails between the count and the session: that use is gone, and opened nothing', async () => {
    const grant = await granted({ max_uses: 1 })
    const add = vi
      .spyOn(SqliteSessionStore.prototype, 'add')
      .mockRejectedValueOnce(new Error('the disk is gone'))
    onTestFinished(() => add.mockRestore())
    expect((await use(grant)).status).toBe(503)
    expect(told(await use(grant))).toEqual([403, 'grant.used_up'])
    expect((await read(grant)).uses).toBe(1)
  })

  test('one that is used up does not hide another', async () => {
    const once = await granted({ max_uses: 1 })
    await end(await use(once))
    const other = await granted({ duration_s: 60 })
    const reply = await vendor.call<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect([reply.status, reply.body.grant]).toEqual([201, other.id])
    await end(reply)
    await vendor.ask('POST', `/grants/${other.id}/done`)
  })

  test.for([{ max_uses: 0 }, { max_uses: 1001 }, { max_bytes: 0 }, { max_bytes: 2 ** 37 }])(
    '%o cannot be asked for',
    async (limits) => {
      expect(told(await vendor.call('POST', '/grants', { ...WANTED, ...limits }))).toEqual([
        400,
        'body.invalid',
      ])
    },
  )

  test('to write, nothing is counted: the grant to read beside it is', async () => {
    const write = { ot_level: 2, ot_windows: [{ unit: 1, from: 0, to: 9 }], max_uses: 1 }
    const reply = await vendor.call('POST', '/grants', { ...WANTED, ...write })
    expect(told(reply)).toEqual([400, 'grant.counts'])
  })
})

describe('so many bytes', () => {
  test('over two sessions, both ways: the one that reaches it is cut and told why; no more of it gets in', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000 })
    const grant = await granted({ max_bytes: 10_000 })
    const first = await use(grant)
    await using client = await Client.dial(node)
    const one = await client.line(first.body)
    one.write(new Uint8Array(2000))
    await one.until('the echo', ({ total }) => total === 2000)
    expect(await read(grant)).toMatchObject({ bytes: 4000, max_bytes: 10_000 })
    await end(first)
    await until('the rest is given back', () =>
      node.rows('SELECT bytes FROM access_grant WHERE id = ? AND bytes = 4000', grant.id).at(0),
    )
    const second = await use(grant)
    const other = await client.line(second.body)
    // To the last byte: as much as comes back as went there.
    other.write(new Uint8Array(3000))
    await other.until('the echo', ({ total }) => total === 3000)
    other.write(new Uint8Array(1))
    expect((await other.gone()).code).toBe('byte.limit')
    expect(other.signals).toMatchObject([
      {
        t: 'ending',
        code: 'byte.limit',
        msg: expect.stringContaining('in all its sessions'),
        next_step: expect.stringMatching(/^ask for another grant/),
      },
    ])
    const ended = await until('it has ended', async () => {
      const session = await vendor.ask<Session>('GET', `/sessions/${second.body.id}`)
      return session.state === 'ended' ? session : undefined
    })
    expect(ended).toMatchObject({ reason: 'byte_limit', bytes_in: 3000, bytes_out: 3000 })
    const third = await use(grant)
    expect(told(third)).toEqual([403, 'grant.used_up'])
    expect(third.body.detail).toContain('have carried all of its 10000 bytes')
    expect((await read(grant)).bytes).toBe(10_000)
  })

  test('all of them in one session: nobody is told to connect again for more', async () => {
    const opened = await use(await granted({ max_bytes: 1000 }))
    await using client = await Client.dial(node)
    const line = await client.line(opened.body)
    line.write(new Uint8Array(1001))
    expect((await line.gone()).code).toBe('byte.limit')
    expect(line.signals).toMatchObject([
      { t: 'ending', next_step: expect.stringMatching(/^ask for another grant/) },
    ])
  })

  test('what a crash left set aside stays counted', async () => {
    const grant = await granted({ max_bytes: 10_000 })
    // As after kill -9: the session is gone, and nobody gave anything back.
    const back = vi.spyOn(SqliteGrantStore.prototype, 'returnBytes').mockResolvedValueOnce()
    onTestFinished(() => back.mockRestore())
    await end(await use(grant))
    await until('it has left', () => back.mock.calls.length > 0)
    expect(told(await use(grant))).toEqual([403, 'grant.used_up'])
  })
})
