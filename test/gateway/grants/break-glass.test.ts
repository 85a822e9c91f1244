/** Break-glass: a sealed grant opens nothing; a quorum breaks it with passkeys, once, loudly; somebody else looks at it after. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { BreakGlass, Ceremony, Grant, Problem } from '#api'
import type { Input } from '#policy'
import type { Statement } from '#approval'
import { saveCredentials } from '../../../cli/login/index.ts'
import { standingFacts } from '../../../gateway/facts.ts'
import { sealFault } from '../../../gateway/grants/addresses.ts'
import { recordDue, ReviewWatch, type Review } from '../../../gateway/grants/review.ts'
import { unsealFault, unsealingOf } from '../../../gateway/grants/seal.ts'
import { during } from '../../../gateway/grants/window.ts'
import { usable } from '../../../gateway/sessions/uses.ts'
import { run } from '../../cli/run.ts'
import { softKey, type SoftKey } from '../../support/authenticator.ts'
import {
  openSession,
  send,
  startNode,
  type Answer,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { answer as answerPolicy } from '../../support/policy.ts'
import { attach, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

let node: TestNode
let agent: FakeAgent
let [vera, oda, olaf] = [] as unknown as [Person, Person, Person]
const keys = new Map<Person, SoftKey>()
const answer = async ({ secret }: Ceremony, credential: object) =>
  await send(node, {
    method: 'POST',
    path: '/api/v1/ceremonies/answer',
    body: { secret, credential },
  })
const challengeOf = ({ options }: Ceremony) => (options as { challenge: string }).challenge

beforeAll(async () => {
  node = await startNode()
  const identity = await node.device('press-07', { plc: expecting() })
  ;[vera, oda, olaf, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('oda', { party: 'staff', roles: ['operator'] }),
    node.person('olaf', { party: 'staff', roles: ['operator'] }),
    attach(node, identity, { listeners: { plc: seen(PLC, 'listener') } }),
  ])
  for (const who of [oda, olaf]) {
    const key = softKey(node.origin)
    const asked = await who.ask<Ceremony>('POST', '/passkeys', { name: 'key' })
    expect((await answer(asked, key.register(challengeOf(asked)))).status).toBe(200)
    keys.set(who, key)
  }
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 600, reason: 'emergencies' }
const sealed = async (): Promise<Grant> => {
  const not_after = Math.floor(Date.now() / 1000) + 90 * 86_400
  const asked = { ...WANTED, sealed: { quorum: 2 }, not_after }
  const { id, hash } = await vera.ask<Grant>('POST', '/grants', asked)
  return await node.admin.ask<Grant>('POST', `/grants/${id}/approve`, { hash })
}
const unseal = async ({ id }: Grant, who = vera) =>
  await who.call<Grant & Problem>('POST', `/grants/${id}/unseal`, { reason: 'line 3 stands' })
const sign = async (who: Person, { id }: Grant) => {
  const asked = await who.call<Ceremony & Problem>('POST', `/grants/${id}/approval`, {})
  if (asked.status !== 201) return asked
  return await answer(asked.body, keys.get(who)?.answer(challengeOf(asked.body)) ?? {})
}
const read = async ({ id }: Grant) => await vera.ask<Grant>('GET', `/grants/${id}`)
const told = ({ status, body }: Answer<Problem>) => [status, body.code]
const enter = async (by: { readonly grant?: string } = {}) =>
  await vera.call<Problem>('POST', '/sessions', { device: 'press-07', process: 'plc', ...by })
const reviews = async () =>
  (await oda.ask<{ items: BreakGlass[] }>('GET', '/break-glass')).items.filter(
    ({ closed }) => closed === null,
  )
const broken = async (grant: Grant): Promise<Grant> => {
  const { body } = await unseal(grant)
  for (const who of [oda, olaf]) expect((await sign(who, body)).status).toBe(200)
  return body
}

test('sealed it opens nothing; broken by two it opens at once, alarmed before, and is reviewed', async () => {
  const grant = await sealed()
  expect(grant).toMatchObject({ state: 'approved', sealed: 2 })
  const early = await enter()
  expect(told(early)).toEqual([403, 'grant.not_yet'])
  expect(early.body.next_step).toContain(`sallyport break-glass open ${grant.id}`)

  const { body: opening } = await unseal(grant)
  expect(opening).toMatchObject({ state: 'requested', unseals: grant.id, approvals_needed: 2 })
  const from = node.size()
  const plainly = { hash: opening.hash }
  const unsigned = await oda.call<Problem>('POST', `/grants/${opening.id}/approve`, plainly)
  expect(told(unsigned)).toEqual([403, 'passkey.refused'])
  expect((await sign(oda, opening)).status).toBe(200)
  const again = await oda.call<Problem>('POST', `/grants/${opening.id}/approval`, {})
  expect(told(again)).toEqual([409, 'grant.person'])
  expect((await read(opening)).state).toBe('requested')
  expect(told(await enter())[0]).toBe(403)

  expect((await sign(olaf, opening)).status).toBe(200)
  expect((await read(grant)).ended?.reason).toBe(`unsealed by ${opening.id}`)
  const codes = node.acts(from).map(({ code }) => code)
  const order = ['finding.break_glass', 'grant.activate', 'grant.burn']
  expect(codes.filter((code) => order.includes(code))).toEqual(order)
  expect((await reviews()).map((one) => one.grant)).toEqual([opening.id])

  let glass: unknown
  answerPolicy((decision, point, input) => {
    // What re-decides it while it is being opened has the same answer.
    if (point !== 'session.open' && point !== 'session.reevaluate') return decision
    glass = (input as Input).subject.break_glass
    // There are no auditors here; what a broken seal lets in is recorded, or not let in.
    if (decision.allow) expect(decision.obligations).toMatchObject({ record: true, notify: true })
    return { ...decision, obligations: { ...decision.obligations, record: false } }
  })
  const session = await openSession(vera, 'press-07', 'plc')
  expect(glass).toMatchObject({ id: opening.id })
  expect((glass as { approvers: string[] }).approvers).toHaveLength(2)
  expect(session.grant).toBe(opening.id)
  const longer = { longer_s: 60, reason: 'more' }
  const more = await vera.call<Problem>('POST', `/grants/${opening.id}/extension`, longer)
  expect(told(more)).toEqual([409, 'grant.state'])

  const review = async (who: Person) =>
    await who.call<BreakGlass & Problem>('POST', `/grants/${opening.id}/review`, { note: 'fine' })
  expect(told(await review(vera))).toEqual([409, 'grant.person'])
  const both = await Promise.all([review(oda), review(olaf)])
  expect(both.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409])
  expect(await reviews()).toEqual([])
  await vera.ask('POST', `/grants/${opening.id}/done`)
})

test('two openings of one seal, signed to the end at once: one breaks it', async () => {
  const grant = await sealed()
  const both = [(await unseal(grant)).body, (await unseal(grant)).body] as const
  // Each key makes one answer at a time: of two at once the later may come first, and the other's counter went back.
  for (const [who, one] of [
    [oda, both[0]],
    [olaf, both[1]],
  ] as const)
    expect((await sign(who, one)).status).toBe(200)
  const from = node.size()
  const before = (await reviews()).length
  const last = await Promise.all([sign(olaf, both[0]), sign(oda, both[1])])
  expect(last.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409])
  const states = (await Promise.all(both.map(read))).map(({ state }) => state)
  expect(states.toSorted()).toEqual(['approved', 'requested'])
  const alarms = node.acts(from).filter(({ code }) => code === 'finding.break_glass')
  expect([alarms.length, (await reviews()).length - before]).toEqual([1, 1])
  expect(told(await unseal(grant))).toEqual([409, 'grant.state'])
})

test.for<readonly [string, (grant: Grant) => Promise<unknown>]>([
  ['revoked', async ({ id }) => await oda.ask('POST', `/grants/${id}/revoke`, { reason: 'no' })],
  ['given back', async ({ id }) => await vera.ask('POST', `/grants/${id}/done`)],
])('a seal that was %s meanwhile is not broken', async ([, end]) => {
  const grant = await sealed()
  const { body } = await unseal(grant)
  expect((await sign(oda, body)).status).toBe(200)
  await end(grant)
  const from = node.size()
  expect((await sign(olaf, body)).status).toBe(409)
  expect(node.acts(from).map(({ code }) => code)).not.toContain('finding.break_glass')
  expect((await read(body)).state).toBe('requested')
})

test('revoked while its seal is being broken: an alarm stands for a broken seal, and for no other', async () => {
  const grant = await sealed()
  const { body } = await unseal(grant)
  expect((await sign(oda, body)).status).toBe(200)
  const from = node.size()
  const [last, revoked] = await Promise.all([
    sign(olaf, body),
    oda.call('POST', `/grants/${grant.id}/revoke`, { reason: 'no' }),
  ])
  expect([last.status, revoked.status].toSorted((a, b) => a - b)).toEqual([200, 409])
  const alarms = node.acts(from).filter(({ code }) => code === 'finding.break_glass')
  expect(alarms).toHaveLength(last.status === 200 ? 1 : 0)
})

test('a seal that was stored as beginning later is not broken by what was signed before', async () => {
  const grant = await sealed()
  const { body } = await unseal(grant)
  expect((await sign(oda, body)).status).toBe(200)
  const later = Math.floor(Date.now() / 1000) + 3600
  const change =
    "UPDATE access_grant SET statement = json_set(statement, '$.not_before', ?) WHERE id = ?"
  node.change(change, later, grant.id)
  const from = node.size()
  expect(told(await sign(olaf, body))).toEqual([409, 'grant.state'])
  expect(told(await unseal(grant))).toEqual([409, 'grant.state'])
  expect(node.acts(from).map(({ code }) => code)).not.toContain('finding.break_glass')
})

test('nobody but its holder asks, and of what has no seal nobody does', async () => {
  const grant = await sealed()
  expect(told(await unseal(grant, oda))).toEqual([409, 'grant.state'])
  const { id, hash } = await vera.ask<Grant>('POST', '/grants', WANTED)
  const ordinary = await node.admin.ask<Grant>('POST', `/grants/${id}/approve`, { hash })
  expect(told(await unseal(ordinary))).toEqual([409, 'grant.state'])
  await vera.ask('POST', `/grants/${id}/done`)
})

test('a statement whose signatures were taken away in the store stands on no broken seal', async () => {
  const opening = await broken(await sealed())
  const where = 'UPDATE grant_approval SET signature = NULL WHERE grant_id = ?'
  node.change(where, opening.id)
  let glass: unknown = 'nothing asked'
  answerPolicy((decision, point, input) => {
    if (point === 'session.open') glass = (input as Input).subject.break_glass
    return decision
  })
  // Another seal may have been broken in the same second: of two that end at once either lets in.
  await enter({ grant: opening.id })
  expect(glass).toBeNull()
})

test('by the commands, as docs/grants.md shows them', async () => {
  const home = mkdtempSync(join(tmpdir(), 'sallyport-glass-'))
  onTestFinished(() => rmSync(home, { recursive: true }))
  const as = async (who: Person, ...args: string[]) => {
    const own = join(home, who.credentials.subject)
    await saveCredentials(join(own, 'credentials'), who.credentials)
    const ran = await run(own, ...args)
    expect([args.join(' '), ran.err, ran.code]).toEqual([args.join(' '), '', 0])
    return ran.out
  }
  const year = new Date(Date.now() + 90 * 86_400_000).toISOString()
  const idIn = (out: string) => /g_[0-9a-z]{26}/.exec(out)?.[0] ?? ''

  const every = ['--every', 'Tue 02:00-04:00', '--zone', 'Europe/Berlin', '--until', year]
  const weekly = await as(vera, 'request', 'press-07/plc', ...every, '--reason', 'monthly counters')
  expect(weekly).toContain('every Tuesday 02:00 to 04:00, Europe/Berlin')
  // In the window itself it opens at the minute in which it was asked for.
  expect(weekly).toMatch(/opens +Tue 2\d{3}-\d\d-\d\d 0[23]:\d\d Europe\/Berlin/)
  await as(vera, 'done', idIn(weekly))

  const flags = ['--for', '4h', '--sealed', '2', '--until', year, '--reason', 'on call']
  const asked = await as(vera, 'request', 'press-07/plc', ...flags)
  const id = idIn(asked)
  expect(asked).toContain(`in an emergency: sallyport break-glass open ${id} --reason …`)
  await as(node.admin, 'approve', id, '--no-passkey')
  const opening = await as(vera, 'break-glass', 'open', id, '--reason', 'line 3 stands')
  expect(opening).toMatch(new RegExp(`BREAKS THE SEAL OF +${id}`))
  const opened = { id: idIn(opening) } as Grant
  for (const who of [oda, olaf]) expect((await sign(who, opened)).status).toBe(200)
  expect(await as(oda, 'break-glass', 'list')).toMatch(new RegExp(`${opened.id} .*line 3 stands`))
  const closed = await as(oda, 'break-glass', 'review', opened.id, '--note', 'valve replaced')
  expect(closed).toBe(`the review of ${opened.id} is closed\n`)
})

describe('the statement', () => {
  const statement = statementOf(1000, {
    not_after: 9_000_000,
    reason: 'emergencies',
    sealed: { quorum: 2 },
  })
  const grant = grantAround(statement)
  test('that is sealed holds at no instant, for no session', () => {
    for (const now of [1000, 5000, 8_999_999, 9_000_000]) {
      expect(usable([grant], now, { spare: () => 0 })).toBeUndefined()
      for (const one of [grant, during(grant, now)]) {
        const [facts] = standingFacts(one)
        const [from, until] = [facts?.not_before ?? 0, facts?.expires_at ?? 0]
        expect(from <= now && now < until).toBe(false)
      }
    }
  })
  test('that breaks it is for so long, names what was seen, and is sealed no more', () => {
    const made = unsealingOf({ grant, reason: 'fire' }, 'g_2', 5000)
    expect(made).toMatchObject({
      not_before: 5000,
      not_after: 5000 + 3600 + 600,
      max_duration_s: 600,
      reason: 'fire',
      unseals: { grant: 'g_1', sha256: grant.hash },
    })
    expect(made.sealed).toBeUndefined()
    expect(unsealingOf({ grant, reason: 'fire' }, 'g_2', 8_999_900).not_after).toBe(9_000_000)
  })
  test('is broken from its beginning until its end', () => {
    const subject = { id: 'iss|vera' } as Parameters<typeof unsealFault>[0]['subject']
    expect(unsealFault({ subject, grant }, 999)?.message).toContain(
      'begins at 1970-01-01T00:16:40Z',
    )
    expect(unsealFault({ subject, grant }, 1000)).toBeUndefined()
    expect(unsealFault({ subject, grant }, 8_999_999)).toBeUndefined()
    expect(unsealFault({ subject, grant }, 9_000_000)?.code).toBe('grant.state')
  })
  test.for<readonly [string, Partial<Statement>, boolean]>([
    ['a day long', { max_duration_s: 86_400 }, true],
    ['longer than a day', { max_duration_s: 86_401 }, false],
    ['to write', { ot_level: 2 }, false],
    ['each week', { recurring: { tz: 'UTC', days: [1], from_min: 0, to_min: 60 } }, false],
  ])('sealed %s', ([, change, allowed]) => {
    expect(sealFault({ ...statement, ...change })?.code).toBe(allowed ? undefined : 'grant.seal')
  })
})

describe('a review that nobody closes', () => {
  function place(failing = false) {
    let review: Review = { grant: 'g_2', opened_at: 0, due_at: 100, reminded: false, closed: null }
    const said: string[] = []
    const clock = { now: 99_999 }
    const room = {
      log: {
        append: ({ data }: { data?: unknown }) => {
          said.push(String((data as { finding: string }).finding))
          return Promise.resolve({ idx: 1 })
        },
      },
      reviews: {
        findReview: () => Promise.resolve(review),
        listReviews: () => Promise.resolve([review]),
        closeReview: () => {
          review = { ...review, closed: { at: 1, by: 'iss|oda', note: 'fine' } }
          return Promise.resolve(review)
        },
        markReminded: () => {
          if (failing) return Promise.reject(new Error('killed'))
          review = { ...review, reminded: true }
          return Promise.resolve()
        },
      },
      now: () => clock.now,
    } as unknown as Parameters<typeof recordDue>[0]
    return { room, said, clock }
  }
  test('is said to be due once, at its time, and counted until it is closed', async () => {
    const { room, said, clock } = place()
    expect(await recordDue(room)).toEqual({ reviews_open: 1, reviews_overdue: 0 })
    expect(said).toEqual([])
    clock.now = 100_000
    for (let look = 0; look < 2; look++)
      expect(await recordDue(room)).toEqual({ reviews_open: 1, reviews_overdue: 1 })
    expect(said).toEqual(['break_glass.review_due'])
    await room.reviews.closeReview('g_2', { at: 1, by: '', note: '' })
    expect(await recordDue(room)).toEqual({ reviews_open: 0, reviews_overdue: 0 })
  })
  test('looked at from two sides at once it is said once', async () => {
    const { room, said, clock } = place()
    clock.now = 100_000
    await using watch = new ReviewWatch({ ...room, report: () => undefined })
    await Promise.all([watch.refresh(), watch.refresh()])
    expect(said).toEqual(['break_glass.review_due'])
    expect(watch.health()).toEqual({ reviews_open: 1, reviews_overdue: 1 })
  })
  test('killed between the record and the mark: said again, never forgotten', async () => {
    const { room, said, clock } = place(true)
    clock.now = 100_000
    await expect(recordDue(room)).rejects.toThrow('killed')
    await expect(recordDue(room)).rejects.toThrow('killed')
    expect(said).toHaveLength(2)
  })
})
