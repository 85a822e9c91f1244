/** An approval while the policy changes: it counts by the policy that holds when it takes effect. */
import { expect, test } from 'vitest'
import type { EventInput } from '#audit'
import { PolicyEngine, type Candidate } from '#policy'
import { Decisions } from '../../../gateway/decisions.ts'
import { approveGrant } from '../../../gateway/grants/approve.ts'
import { endGrant } from '../../../gateway/grants/end.ts'
import type { Approval } from '../../../gateway/grants/grant.ts'
import type { GrantRoom } from '../../../gateway/grants/request.ts'
import type { Subject } from '../../../gateway/identity/index.ts'
import { StoreError } from '../../../gateway/store/sqlite/thread.ts'
import { examineBundle } from '../../../policy/candidate.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import { builtin, withData } from '../../policy/fixture.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

const base = (await baseInputs())['grant.approve']
const NOW = base.time.epoch_s ?? 0

interface Zone {
  approvals: number
  approvers: string[]
}

/** The product's rules over a default zone that says otherwise. */
async function zoned(name: string, change: Partial<Zone>): Promise<Candidate> {
  const data = structuredClone(builtin.data) as { site: { zones: { default: Zone } } }
  Object.assign(data.site.zones.default, change)
  return await examineBundle({ ...withData(data), digest: name.repeat(64) })
}

/** An approval asked for under one policy, while another comes into force as it is being recorded. */
async function approvedWhile(first: Candidate, then: Candidate) {
  const engine = PolicyEngine.unavailable()
  engine.adopt(first)
  const place = { tenant: base.tenant ?? '', gateway: 'gw1', site: 'main', timezone: 'UTC' }
  const decisions = new Decisions(engine, place, () => NOW * 1000)
  const grant = grantAround(
    statementOf(NOW, { tenant: place.tenant, requester: 'https://id.example|vera' }),
    { state: 'requested' },
  )
  const events: EventInput[] = []
  const kept: { approval: Approval; needed: number }[] = []
  const room = {
    now: () => NOW * 1000,
    decisions,
    personOf: async (id: string) => id,
    log: {
      append: async (event: EventInput) => {
        events.push(event)
        if (event.code === 'grant.approve') engine.adopt(then)
      },
    },
    store: {
      find: async () => grant,
      approve: async (_id: string, approval: Approval, needed: number) => {
        kept.push({ approval, needed })
        return grant
      },
    },
    devices: {
      find: async () => ({ id: 'press-07', zone: 'default', state: 'active', labels: {} }),
    },
    registry: { find: () => undefined, isCutOff: () => false },
  } as unknown as GrantRoom
  const subject = base.subject as unknown as Subject
  const source = { ip: base.client?.ip ?? null, tls: null }
  const done = approveGrant(room, { subject, source, id: 'g_1', hash: grant.hash })
  const code = await done.then(
    () => undefined,
    (error: { readonly code?: string }) => error.code,
  )
  const said = events.map((event) => [event.code, event.status])
  return { code, said, kept, last: events.at(-1) }
}

const lax = await zoned('a', { approvals: 1 })
const strict = await zoned('b', { approvals: 2 })
const closed = await zoned('c', { approvers: [] })

test('nothing changes: one approval, and the grant takes effect', async () => {
  const { said, kept } = await approvedWhile(lax, lax)
  expect(said).toEqual([
    ['grant.approve', 'success'],
    ['grant.activate', 'success'],
  ])
  expect(kept).toMatchObject([{ needed: 1 }])
})

test('a stricter policy comes back: the approval counts, and does not suffice', async () => {
  const { code, said, kept } = await approvedWhile(lax, strict)
  expect([code, said]).toEqual([undefined, [['grant.approve', 'success']]])
  expect(kept).toMatchObject([{ needed: 2 }])
})

test('a stricter policy is taken back: no more are needed than now hold', async () => {
  const { said, kept } = await approvedWhile(strict, lax)
  expect(said.at(-1)).toEqual(['grant.activate', 'success'])
  expect(kept).toMatchObject([{ needed: 1 }])
})

test('a policy that takes no approval of theirs: nothing is kept, and the log says so', async () => {
  const { code, said, kept, last } = await approvedWhile(lax, closed)
  expect(code).toBe('policy.denied')
  expect(kept).toEqual([])
  expect(said).toEqual([
    ['grant.approve', 'success'],
    ['grant.approve', 'failure'],
  ])
  expect(last).toMatchObject({ reason: 'approver.not_eligible', data: { approvals: 0 } })
})

/** A grant is ended while the store is read and takes no writes. */
async function endedUnkept(ending: 'revoke' | 'burn') {
  const grant = grantAround(statementOf(NOW, { requester: 'https://id.example|vera' }), {
    state: 'approved',
  })
  const events: EventInput[] = []
  const full = new StoreError('store.unavailable', 'Redis: OOM command not allowed')
  const room = {
    now: () => NOW * 1000,
    log: { append: async (event: EventInput) => void events.push(event) },
    store: {
      find: async () => grant,
      apply: async () => await Promise.reject(full),
    },
  } as unknown as GrantRoom
  const subject = base.subject as unknown as Subject
  const source = { ip: null, tls: null }
  const done = endGrant(room, { subject, source, grant, ending, reason: 'enough' })
  await expect(done).rejects.toBe(full)
  return events.map(({ code, status, reason, data }) => {
    return [code, status, reason, (data as { readonly effect?: string } | undefined)?.effect]
  })
}

test('an end that the store does not take is taken back in the log', async () => {
  for (const ending of ['revoke', 'burn'] as const)
    expect(await endedUnkept(ending)).toEqual([
      [`grant.${ending}`, 'success', undefined, undefined],
      [`grant.${ending}`, 'failure', 'store.unavailable', 'unknown'],
    ])
})

test.for([
  { now: 'active', next: 'sallyport revoke g_1', detail: /approved meanwhile: it is active/ },
  { now: 'approved', next: 'sallyport revoke g_1', detail: /approved meanwhile: it is approved/ },
  { now: 'revoked', next: undefined, detail: /ended meanwhile/ },
] as const)(
  'a rejection of one that another gateway made $now meanwhile has no effect, and is recorded so',
  async ({ now, next, detail }) => {
    const statement = statementOf(NOW, { id: 'g_1', requester: 'https://id.example|vera' })
    const grant = grantAround(statement, { state: 'requested' })
    const ended = now === 'revoked' ? { at: NOW, by: 'p_1', reason: 'enough' } : null
    const events: EventInput[] = []
    let found = grant
    const room = {
      now: () => NOW * 1000,
      log: { append: async (event: EventInput) => void events.push(event) },
      store: {
        find: async () => found,
        apply: async () => {
          found = { ...grant, state: now, ended }
          return await Promise.resolve(undefined)
        },
      },
    } as unknown as GrantRoom
    const subject = base.subject as unknown as Subject
    const source = { ip: null, tls: null }
    const ask = { subject, source, grant, ending: 'reject', reason: 'not now' } as const
    await expect(endGrant(room, ask)).rejects.toMatchObject({
      code: 'grant.state',
      message: expect.stringMatching(detail),
      nextStep: next,
    })
    expect(events).toMatchObject([
      { code: 'grant.reject', status: 'success', grant: 'g_1' },
      {
        code: 'grant.reject',
        status: 'failure',
        reason: 'grant.state',
        grant: 'g_1',
        data: { effect: 'none', reason_given: 'not now' },
      },
    ])
  },
)
