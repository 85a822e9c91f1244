/** What waits: revocations between word and deed, the numbers of CRLs, enrolments that want a person. */
import { expect, test } from 'vitest'
import { instant, type Instant, type PendingRow } from '#ca'
import type { OpenedStores } from './store-contract.ts'
import { DAY, HOUR, NOON, TENANT } from './support.ts'

const OTHER = 'other.sallyport.internal'
const at = (hours: number): Instant => instant(NOON + hours * HOUR)
let count = 0

function waiting(change: Partial<PendingRow> = {}): PendingRow {
  const id = `e_${String(++count).padStart(26, '0')}`
  return {
    id,
    tenant: TENANT,
    key: id.padEnd(64, 'a'),
    principal: 'token:t_1',
    operation: 'simpleenroll',
    label: 'device',
    device: 'press-07',
    spkiSha256: 'ab'.repeat(32),
    denials: [{ code: 'renew.too_late', msg: 'it ended "long" ago', remedy: 'approve' }],
    decisionId: 'd_1',
    remoteAddress: '192.0.2.7',
    createdAt: at(0),
    expiresAt: instant(NOON + 7 * DAY),
    state: 'pending',
    decidedBy: null,
    decidedAt: null,
    ...change,
  }
}

/** Registers its part of the suite. */
export function waitingContract(open: () => Promise<OpenedStores>): void {
  const targets = [
    { name: 'a device', target: { device: 'press-07' } },
    { name: 'a serial', target: { serial: '4a'.repeat(16) } },
    { name: 'an issuer', target: { issuer: 'aa'.repeat(20) } },
  ]
  test.for(targets)('a revocation of $name that was asked for survives reopening', async (row) => {
    const { store, again } = await open()
    const { target } = row
    const asked = { target, reason: 'privilegeWithdrawn', at: at(1) } as const
    const id = await store.intendRevocation(TENANT, asked)
    expect(await store.revocationsSince(TENANT, 0)).toEqual([])
    const { store: reopened } = await again()
    expect(await reopened.openRevocations(TENANT)).toEqual([{ id, ...asked }])
    const done = await reopened.redeemRevocation(TENANT, id)
    expect(done).toEqual({ epoch: 1, serials: [], ...asked })
    expect(await reopened.openRevocations(TENANT)).toEqual([])
    expect(await reopened.revocationsSince(TENANT, 0)).toEqual([done])
  })

  test('revocations are open in the order in which they were asked for, in their own tenant', async () => {
    const { store } = await open()
    const ids: number[] = []
    for (let n = 0; n < 12; n++)
      ids.push(
        await store.intendRevocation(TENANT, {
          target: { device: `press-${n}` },
          reason: 'superseded',
          at: at(-n),
        }),
      )
    expect((await store.openRevocations(TENANT)).map(({ id }) => id)).toEqual(ids)
    expect(await store.openRevocations(OTHER)).toEqual([])
    await expect(store.redeemRevocation(OTHER, ids[0] ?? 0)).rejects.toThrow()
    await store.dropRevocation(OTHER, ids[0] ?? 0)
    await store.dropRevocation(TENANT, ids[1] ?? 0)
    expect((await store.openRevocations(TENANT)).map(({ id }) => id)).toEqual(ids.toSpliced(1, 1))
    await expect(store.redeemRevocation(TENANT, ids[1] ?? 0)).rejects.toThrow()
    await store.redeemRevocation(TENANT, ids[0] ?? 0)
    await expect(store.redeemRevocation(TENANT, ids[0] ?? 0)).rejects.toThrow()
  })

  test('numbers of lists rise, for each issuer, whatever the clock does, and over reopening', async () => {
    const { store, again } = await open()
    const issuer = 'aa'.repeat(20)
    expect(await store.nextCrl(TENANT, issuer, at(0))).toEqual({ number: NOON, previous: null })
    const same = { number: NOON + 1, previous: at(0) }
    expect(await store.nextCrl(TENANT, issuer, at(0))).toEqual(same)
    const back = { number: NOON + 2, previous: at(0) }
    expect(await store.nextCrl(TENANT, issuer, at(-8_760))).toEqual(back)
    const { store: reopened } = await again()
    const later = { number: NOON + HOUR, previous: at(-8_760) }
    expect(await reopened.nextCrl(TENANT, issuer, at(1))).toEqual(later)
    for (const [tenant, other] of [
      [TENANT, 'bb'.repeat(20)],
      [OTHER, issuer],
    ] as const)
      expect(await reopened.nextCrl(tenant, other, at(0))).toEqual({
        number: NOON,
        previous: null,
      })
  })

  test('a request waits once, however often it comes, with what stands in its way now', async () => {
    const { pending, again } = await open()
    const first = waiting()
    expect(await pending.wait(first, 16)).toEqual(first)
    const next = waiting({
      key: first.key,
      denials: [{ code: 'enroll.zone', msg: 'zone', remedy: 'approve' }],
      decisionId: 'd_2',
      remoteAddress: '192.0.2.8',
      createdAt: at(1),
      expiresAt: instant(NOON + 8 * DAY),
    })
    const { denials, decisionId, remoteAddress, expiresAt } = next
    const held = { ...first, denials, decisionId, remoteAddress, expiresAt }
    expect(await pending.wait(next, 16)).toEqual(held)
    const { pending: reopened } = await again()
    expect(await reopened.list(TENANT, at(1))).toEqual([held])
    expect(await reopened.find(TENANT, first.id, at(1))).toEqual(held)
    expect(await reopened.find(OTHER, first.id, at(1))).toBeUndefined()
    expect(await reopened.list(OTHER, at(1))).toEqual([])
  })

  test('twenty of the same at once: one waits', async () => {
    const { pending } = await open()
    const key = 'k'.repeat(64)
    const rows = await Promise.all(
      Array.from({ length: 20 }, () => pending.wait(waiting({ key }), 16)),
    )
    expect(new Set(rows.map((row) => (row === 'full' ? row : row.id))).size).toBe(1)
    expect(await pending.list(TENANT, at(0))).toHaveLength(1)
  })

  test('a principal has so many waiting and no more; another has its own', async () => {
    const { pending } = await open()
    const rows = [waiting(), waiting()]
    for (const row of rows) expect(await pending.wait(row, 2)).toEqual(row)
    expect(await pending.wait(waiting(), 2)).toBe('full')
    expect(await pending.wait(rows[0]!, 2)).toEqual(rows[0])
    expect(await pending.wait(waiting({ principal: 'idevid:acme:a b' }), 2)).not.toBe('full')
    expect(await pending.wait(waiting({ tenant: OTHER }), 2)).not.toBe('full')
    const answer = { state: 'rejected', by: 'x', at: at(1), expiresAt: at(24) } as const
    await pending.decide(TENANT, rows[1]?.id ?? '', answer)
    expect(await pending.wait(waiting(), 2)).not.toBe('full')
  })

  test('newest first', async () => {
    const { pending } = await open()
    const rows = [waiting({ createdAt: at(1) }), waiting({ createdAt: at(0) }), waiting()]
    for (const row of rows) await pending.wait(row, 16)
    const ids = (await pending.list(TENANT, at(2))).map(({ id }) => id)
    expect(ids).toEqual([rows[0]?.id, rows[2]?.id, rows[1]?.id])
  })

  const ends = [
    { name: 'a second before its end', ms: -1_000, there: true },
    { name: 'at its exact end', ms: 0, there: false },
  ]
  test.for(ends)('a request that nobody repeats, $name: there $there', async ({ ms, there }) => {
    const { pending } = await open()
    const row = waiting()
    await pending.wait(row, 16)
    const when = instant(row.expiresAt + ms)
    expect((await pending.find(TENANT, row.id, when)) !== undefined).toBe(there)
    expect(await pending.list(TENANT, when)).toHaveLength(there ? 1 : 0)
    const answer = { state: 'approved', by: 'x', at: when, expiresAt: instant(when + DAY) } as const
    expect((await pending.decide(TENANT, row.id, answer)) !== undefined).toBe(there)
  })

  test('forgotten at its end: the same request waits anew, under another id, and is not full', async () => {
    const { pending } = await open()
    const row = waiting()
    await pending.wait(row, 1)
    const next = waiting({
      key: row.key,
      createdAt: row.expiresAt,
      expiresAt: instant(row.expiresAt + DAY),
    })
    expect(await pending.wait(next, 1)).toEqual(next)
    expect(await pending.list(TENANT, row.expiresAt)).toEqual([next])
  })

  test('answered once; the answer stays as it was given, until its own end', async () => {
    const { pending } = await open()
    const row = waiting()
    await pending.wait(row, 16)
    const answers = ['approved', 'rejected', 'approved', 'rejected'] as const
    const given = await Promise.all(
      answers.map((state, n) =>
        pending.decide(TENANT, row.id, { state, by: `iss|${n}`, at: at(1), expiresAt: at(24) }),
      ),
    )
    const [won, more] = given.filter((each) => each !== undefined)
    expect(more).toBeUndefined()
    expect(won).toMatchObject({ decidedAt: at(1), expiresAt: at(24), denials: row.denials })
    const again = waiting({ key: row.key, denials: [], createdAt: at(2) })
    expect(await pending.wait(again, 16)).toEqual(won)
    expect(await pending.find(TENANT, row.id, at(24))).toBeUndefined()
    const wrong = { state: 'approved', by: 'x', at: at(1), expiresAt: at(2) } as const
    expect(await pending.decide(TENANT, 'e_none', wrong)).toBeUndefined()
    expect(await pending.decide(OTHER, row.id, wrong)).toBeUndefined()
  })
}
