/** A grant from request to end: who may do what to it, in which order, and what happens when two do it at once. */
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { EndedGrant, Grant, OpenedSession } from '#api'
import { canonical, hashOf, type Statement } from '#approval'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { grantFor, startNode, until, type Person, type TestNode } from '../../support/node.ts'
import { answer } from '../../support/policy.ts'
import { attach, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'

let node: TestNode
let agent: FakeAgent
let vendor: Person
let other: Person
let oda: Person
let olaf: Person

beforeAll(async () => {
  node = await startNode()
  const identity = await node.device('press-07', { plc: expecting(), hmi: expecting() })
  const listener = seen(PLC, 'listener')
  ;[vendor, other, oda, olaf, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'other' }),
    node.person('oda', { party: 'staff', roles: ['operator'] }),
    node.person('olaf', { party: 'staff', roles: ['operator'] }),
    attach(node, identity, { listeners: { plc: listener, hmi: listener } }),
  ])
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'service' }
let from = 0
let rows = ''
const stored = () =>
  JSON.stringify([
    node.rows('SELECT * FROM access_grant ORDER BY id'),
    node.rows('SELECT * FROM grant_approval ORDER BY 1, 2'),
  ])
beforeEach(async () => {
  for (const who of [vendor, other])
    for (const { id, ended } of (await who.ask<{ items: Grant[] }>('GET', '/grants')).items)
      // One whose time is over may end by itself meanwhile.
      if (ended === null) await who.call('POST', `/grants/${id}/done`)
  await until('nothing is open', async () => (await node.health()).sessions === 0)
  from = node.size()
  rows = stored()
})
const codesSince = () => node.acts(from).map(({ code }) => code)
const asked = async (more = {}) =>
  await vendor.ask<Grant>('POST', '/grants', { ...WANTED, ...more })
const read = async (grant: Grant) => await oda.ask<Grant>('GET', `/grants/${grant.id}`)
const now = () => Math.floor(Date.now() / 1000)

/**
 * The same grant as if everything about it had happened so many seconds earlier: nobody waits for its end. It stays
 * among the newest of this file: of those that are over, a vendor is told of the newest 32.
 */
function age(id: string, seconds: number): void {
  const [row] = node.rows('SELECT statement FROM access_grant WHERE id = ?', id)
  const { not_before, not_after, created_at, ...rest } = JSON.parse(
    String(row?.['statement']),
  ) as Statement
  const statement: Statement = {
    ...rest,
    not_before: not_before - seconds,
    not_after: not_after - seconds,
    created_at: created_at - seconds,
  }
  node.change(
    'UPDATE access_grant SET statement = ?, hash = ?, first_used_at = first_used_at - ? WHERE id = ?',
    canonical(statement),
    hashOf(statement),
    seconds,
    id,
  )
  node.change(
    'UPDATE grant_approval SET hash = ?, at = at - ? WHERE grant_id = ?',
    hashOf(statement),
    seconds,
    id,
  )
}

describe('asking', () => {
  test.for([
    { name: 'a device that is not there', more: { device: 'nowhere' } },
    { name: 'a process that is not there', more: { processes: ['nothing'] } },
    {
      name: 'one process that is there and one that is not',
      more: { processes: ['plc', 'nothing'] },
    },
  ])('$name: told alike, recorded, and nothing kept', async ({ more }) => {
    const reply = await vendor.call('POST', '/grants', { ...WANTED, ...more })
    expect([reply.status, reply.body.code]).toEqual([404, 'target.unknown'])
    expect(reply.body.detail).toBe('there is no such device with all of these processes')
    expect(stored()).toBe(rows)
    expect(codesSince()).toEqual(['grant.request'])
    expect(node.acts(from)[0]?.text).toContain('target.unknown')
  })

  test.for([
    {
      name: 'a window that is over',
      more: () => ({ not_before: now() - 20, not_after: now() - 10 }),
    },
    {
      name: 'a window that ends before it begins',
      more: () => ({ not_before: now() + 20, not_after: now() + 10 }),
    },
    {
      name: 'a window of no time',
      more: () => ({ not_before: now() + 20, not_after: now() + 20 }),
    },
  ])('$name', async ({ more }) => {
    const reply = await vendor.call('POST', '/grants', { ...WANTED, ...more() })
    expect([reply.status, reply.body.code]).toEqual([400, 'grant.window'])
    expect(stored()).toBe(rows)
  })

  test('longer than the zone allows', async () => {
    const reply = await vendor.call('POST', '/grants', { ...WANTED, duration_s: 604_801 })
    expect([reply.status, reply.body.code]).toEqual([403, 'request.duration'])
    expect(codesSince()).toEqual(['grant.request'])
    expect(stored()).toBe(rows)
  })
})

describe('approving', () => {
  const refusals: readonly {
    readonly name: string
    readonly who: () => Person
    readonly status: number
    readonly code: string
    readonly hash?: string
    readonly events: readonly string[]
  }[] = [
    {
      name: 'one’s own request',
      who: () => vendor,
      status: 403,
      code: 'host.approver_is_requester',
      events: ['grant.approve'],
    },
    {
      name: 'another vendor’s request',
      who: () => other,
      status: 404,
      code: 'grant.unknown',
      events: [],
    },
    {
      name: 'with the hash of another statement',
      who: () => oda,
      status: 409,
      code: 'grant.changed',
      hash: '0'.repeat(64),
      events: [],
    },
  ]
  test.for(refusals)('$name', async ({ who, status, code, hash, events }) => {
    const grant = await asked()
    from = node.size()
    rows = stored()
    const reply = await who().call('POST', `/grants/${grant.id}/approve`, {
      hash: hash ?? grant.hash,
    })
    expect([reply.status, reply.body.code]).toEqual([status, code])
    expect(codesSince()).toEqual(events)
    expect(stored()).toBe(rows)
    expect((await read(grant)).state).toBe('requested')
  })

  test('one’s own request, as staff', async () => {
    const grant = await oda.ask<Grant>('POST', '/grants', WANTED)
    const reply = await oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    expect([reply.status, reply.body.code]).toEqual([403, 'host.approver_is_requester'])
    expect((await read(grant)).approvals).toEqual([])
    await oda.ask('POST', `/grants/${grant.id}/done`)
  })

  test('twice', async () => {
    const grant = await grantFor(vendor, oda, { device: 'press-07', process: 'plc' })
    from = node.size()
    const reply = await oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.state'])
    expect((await read(grant)).approvals).toHaveLength(1)
  })

  test('what was revoked, rejected or given back', async () => {
    for (const [who, path, body] of [
      [oda, 'revoke', { reason: 'x' }],
      [oda, 'reject', { reason: 'x' }],
      [vendor, 'done', undefined],
    ] as const) {
      const grant = await asked()
      await who.ask('POST', `/grants/${grant.id}/${path}`, body)
      const reply = await oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
      expect([path, reply.status, reply.body.code]).toEqual([path, 409, 'grant.state'])
    }
  })

  test('recorded as activated before it may be used', async () => {
    const grant = await asked()
    await oda.ask('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    expect(codesSince()).toEqual(['grant.request', 'grant.approve', 'grant.activate'])
  })

  test('where nobody must: recorded as activated at once', async () => {
    answer((decision, point) =>
      point === 'grant.request'
        ? { ...decision, obligations: { ...decision.obligations, approvals: 0 } }
        : decision,
    )
    expect((await asked()).state).toBe('approved')
    expect(codesSince()).toEqual(['grant.request', 'grant.activate'])
  })

  test('ended while it was being recorded: the log says that the approval came to nothing', async () => {
    const approve = vi.spyOn(SqliteGrantStore.prototype, 'approve').mockResolvedValueOnce(undefined)
    onTestFinished(() => approve.mockRestore())
    const grant = await asked()
    const reply = await oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.state'])
    const [, , , last] = node.acts(from)
    expect(codesSince().slice(1)).toEqual(['grant.approve', 'grant.activate', 'grant.approve'])
    expect(last?.text).toContain('"grant.state"')
  })

  describe('where two people must', () => {
    const two = () =>
      answer((decision, point) =>
        point === 'grant.request'
          ? { ...decision, obligations: { ...decision.obligations, approvals: 2 } }
          : decision,
      )

    test('one is not enough, the same one again neither', async () => {
      two()
      const grant = await asked()
      expect(grant.approvals_needed).toBe(2)
      const first = await oda.ask<Grant>('POST', `/grants/${grant.id}/approve`, {
        hash: grant.hash,
      })
      expect(first.state).toBe('requested')
      const again = await oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
      expect([again.status, again.body.code]).toEqual([403, 'approver.already_approved'])
      const opening = await vendor.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
      expect([opening.status, opening.body.code]).toEqual([403, 'grant.pending'])
      const second = await olaf.ask<Grant>('POST', `/grants/${grant.id}/approve`, {
        hash: grant.hash,
      })
      expect(second.state).toBe('approved')
      expect(codesSince().filter((code) => code === 'grant.activate')).toHaveLength(1)
    })

    test('both at once, five times: approved once, by both', async () => {
      two()
      for (let round = 0; round < 5; round++) {
        const grant = await asked()
        const body = { hash: grant.hash }
        const replies = await Promise.all(
          [oda, olaf].map((who) => who.call<Grant>('POST', `/grants/${grant.id}/approve`, body)),
        )
        expect(replies.map(({ status }) => status)).toEqual([200, 200])
        expect(replies.map(({ body: { state } }) => state).toSorted()).toEqual([
          'approved',
          'requested',
        ])
        const after = await read(grant)
        expect([after.state, after.approvals.length]).toEqual(['approved', 2])
      }
      expect(codesSince().filter((code) => code === 'grant.activate')).toHaveLength(5)
    })

    test('an approval that a stricter policy gives nothing for: one more is needed', async () => {
      let needed = 2
      answer((decision, point) =>
        point === 'grant.request' || point === 'grant.approve'
          ? { ...decision, obligations: { ...decision.obligations, approvals: needed } }
          : decision,
      )
      const grant = await asked()
      const body = { hash: grant.hash }
      await oda.ask('POST', `/grants/${grant.id}/approve`, body)
      needed = 3
      const second = await olaf.ask<Grant>('POST', `/grants/${grant.id}/approve`, body)
      expect([second.state, second.approvals.length, second.approvals_needed]).toEqual([
        'requested',
        2,
        3,
      ])
      expect(codesSince()).not.toContain('grant.activate')
      const opening = await vendor.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
      expect(opening.body.code).toBe('grant.pending')
    })

    test('a stricter policy that was taken back: as many are needed as were asked for', async () => {
      let needed = 2
      answer((decision, point) =>
        point === 'grant.request' || point === 'grant.approve'
          ? { ...decision, obligations: { ...decision.obligations, approvals: needed } }
          : decision,
      )
      const grant = await asked()
      const body = { hash: grant.hash }
      needed = 4
      const first = await oda.ask<Grant>('POST', `/grants/${grant.id}/approve`, body)
      expect([first.state, first.approvals_needed]).toEqual(['requested', 4])
      needed = 1
      const second = await olaf.ask<Grant>('POST', `/grants/${grant.id}/approve`, body)
      expect([second.state, second.approvals_needed]).toEqual(['approved', 2])
      expect(codesSince()).toContain('grant.activate')
    })

    test('the same person, from two windows at once: counts once', async () => {
      two()
      for (let round = 0; round < 5; round++) {
        const grant = await asked()
        const body = { hash: grant.hash }
        const replies = await Promise.all(
          [oda, oda, oda].map((who) => who.call('POST', `/grants/${grant.id}/approve`, body)),
        )
        expect(replies.filter(({ status }) => status === 200)).toHaveLength(1)
        const after = await read(grant)
        expect([after.state, after.approvals.length]).toEqual(['requested', 1])
      }
    })
  })

  test('where one must, two at once: approved once, by one', async () => {
    for (let round = 0; round < 5; round++) {
      const grant = await asked()
      const body = { hash: grant.hash }
      const replies = await Promise.all(
        [oda, olaf].map((who) => who.call('POST', `/grants/${grant.id}/approve`, body)),
      )
      expect(replies.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409])
      expect((await read(grant)).approvals).toHaveLength(1)
    }
    expect(codesSince().filter((code) => code === 'grant.activate')).toHaveLength(5)
  })

  test('raced by its revocation: revoked stays revoked', async () => {
    for (let round = 0; round < 5; round++) {
      const grant = await asked()
      const since = node.size()
      const approving = oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
      const revoking = olaf.call<EndedGrant>('POST', `/grants/${grant.id}/revoke`, { reason: 'x' })
      const [approved, revoked] = await Promise.all([approving, revoking])
      const recorded = node.events(since).filter(({ code }) => code === 'grant.approve')
      // An approval that was recorded and came to nothing is taken back in the log.
      const takenBack = recorded.filter(({ text }) => text.includes('"grant.state"'))
      if (recorded.length > 0) expect(takenBack).toHaveLength(approved.status === 200 ? 0 : 1)
      expect([200, 409]).toContain(approved.status)
      expect(revoked.status).toBe(200)
      expect((await read(grant)).state).toBe('revoked')
    }
  })
})

describe('ending', () => {
  test('revoked twice', async () => {
    const grant = await grantFor(vendor, oda, { device: 'press-07', process: 'plc' })
    await oda.ask('POST', `/grants/${grant.id}/revoke`, { reason: 'first' })
    from = node.size()
    const again = await olaf.call('POST', `/grants/${grant.id}/revoke`, { reason: 'second' })
    expect([again.status, again.body.code]).toEqual([409, 'grant.state'])
    expect(codesSince()).not.toContain('grant.revoke')
    expect((await read(grant)).ended).toMatchObject({ reason: 'first' })
  })

  test('revoked by two at once: one did it', async () => {
    for (let round = 0; round < 5; round++) {
      const grant = await asked()
      const replies = await Promise.all(
        [oda, olaf].map((who) => who.call('POST', `/grants/${grant.id}/revoke`, { reason: 'x' })),
      )
      expect(replies.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409])
    }
  })

  test('rejected after approval', async () => {
    const grant = await grantFor(vendor, oda, { device: 'press-07', process: 'plc' })
    const reply = await oda.call('POST', `/grants/${grant.id}/reject`, { reason: 'x' })
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.state'])
    expect((await read(grant)).state).toBe('approved')
  })

  test('rejected after approval without end: beyond thirty and some nothing is recorded, and it is revoked all the same', async () => {
    const olga = await node.person('olga', { party: 'staff', roles: ['operator'] })
    const { id } = await grantFor(vendor, oda, { device: 'press-07', process: 'plc' })
    const size = node.size()
    const codes: unknown[] = []
    while (codes.length < 120 && codes.at(-1) !== 'rate.identity')
      codes.push((await olga.call('POST', `/grants/${id}/reject`, { reason: 'x' })).body.code)
    expect(codes.at(-1)).toBe('rate.identity')
    expect(codes.length).toBeGreaterThan(30)
    const said = `grant:revoke grant ${id} allowed`
    const recorded = node.acts(size).filter(({ text }) => text.includes(said))
    expect(recorded).toHaveLength(codes.length - 1)
    expect((await olga.call('POST', `/grants/${id}/revoke`, { reason: 'x' })).status).toBe(200)
  })

  test('given back by somebody else', async () => {
    const grant = await grantFor(vendor, oda, { device: 'press-07', process: 'plc' })
    const reply = await oda.call('POST', `/grants/${grant.id}/done`)
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.state'])
    expect((await read(grant)).state).toBe('approved')
  })
})

describe('using', () => {
  const use = async (grant: Grant, process = 'plc') =>
    await vendor.call<OpenedSession & { code: string }>('POST', '/sessions', {
      device: 'press-07',
      process,
      grant: grant.id,
    })

  test('before its window', async () => {
    const grant = await asked({ not_before: now() + 600, not_after: now() + 1200 })
    await oda.ask('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    const reply = await use(grant)
    expect([reply.status, reply.body.code]).toEqual([403, 'grant.not_yet'])
  })

  test('its window ends before anybody used it', async () => {
    const grant = await asked({ not_after: now() + 3600 })
    await oda.ask('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    age(grant.id, 3600)
    expect((await read(grant)).state).toBe('expired')
    const reply = await use(grant)
    expect([reply.status, reply.body.code]).toEqual([403, 'grant.expired'])
    await until('its end is recorded', async () => (await read(grant)).ended !== null)
    expect(await read(grant)).toMatchObject({
      state: 'expired',
      first_used_at: null,
      ended: { at: grant.not_after - 3600, by: 'time' },
    })
    const ends = node.events(from).filter(({ code }) => code === 'grant.expire')
    expect(ends.map(({ text }) => text.includes(`"ended_at":${grant.not_after - 3600}`))).toEqual([
      true,
    ])
    const later = await use(grant)
    expect([later.status, later.body.code]).toEqual([403, 'grant.expired'])
    const revoked = await oda.call('POST', `/grants/${grant.id}/revoke`, { reason: 'too late' })
    expect([revoked.status, revoked.body.code]).toEqual([409, 'grant.state'])
  })

  test('it counts from the first use, and never again', async () => {
    const where = { device: 'press-07', process: 'plc' }
    const grant = await grantFor(vendor, oda, { ...where, duration_s: 600 })
    const first = await use(grant)
    expect(first.status).toBe(201)
    await vendor.ask('POST', `/sessions/${first.body.id}/end`)
    const second = await use(grant)
    expect(second.body.expires_at).toBe(first.body.expires_at)
    const used = await read(grant)
    expect(used.expires_at).toBe((used.first_used_at ?? 0) + 600)
    await vendor.ask('POST', `/sessions/${second.body.id}/end`)
    age(grant.id, 600)
    const over = await read(grant)
    expect([over.state, over.not_after > now()]).toEqual(['expired', true])
    const reply = await use(grant)
    expect([reply.status, reply.body.code]).toEqual([403, 'grant.expired'])
    expect(codesSince().filter((code) => code === 'grant.use')).toHaveLength(1)
  })

  test('a request that nobody approves ends with its window', async () => {
    const grant = await asked({ not_after: now() + 3600 })
    age(grant.id, 3600)
    const { state, hash } = await read(grant)
    expect(state).toBe('expired')
    const reply = await oda.call('POST', `/grants/${grant.id}/approve`, { hash })
    expect([reply.status, reply.body.code]).toEqual([409, 'grant.state'])
  })
})
