/** Revocation as a deed: intended, logged, done; what a crash in between leaves, and who resolves it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  instant,
  resumeRevocations,
  revoke,
  revokeLapsed,
  type CaEvent,
  type RevocationDesk,
  type RevocationIntentions,
  type RevocationRow,
  type RevocationTarget,
} from '#ca'
import { SqliteCaStore } from '../../gateway/store/sqlite/ca.ts'
import { SqliteThread } from '../../gateway/store/sqlite/thread.ts'
import { intention, tokenRow } from './store-contract.ts'
import { HOUR, NOON, TENANT } from './support.ts'

const now = instant(NOON)
const request = { tenant: TENANT, reason: 'keyCompromise', now } as const

interface Scene {
  readonly store: SqliteCaStore
  readonly events: CaEvent[]
  readonly desk: RevocationDesk & { readonly store: SqliteCaStore }
  /** The same file as the next start finds it. */
  again(): Promise<Scene>
}

async function scene(path?: string): Promise<Scene> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-revoke-'))
  const file = path ?? join(folder, 'store.sqlite')
  const thread = await SqliteThread.open(file)
  onTestFinished(async () => {
    await thread[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true })
  })
  const store = new SqliteCaStore(thread)
  const events: CaEvent[] = []
  return {
    store,
    events,
    desk: { store, log: async (event) => void events.push(event) },
    async again() {
      await thread[Symbol.asyncDispose]()
      return await scene(file)
    },
  }
}

async function issued(store: SqliteCaStore, change: Parameters<typeof intention>[0] = {}) {
  const wanted = intention(change)
  await store.record(wanted)
  await store.complete(wanted, Uint8Array.of(1), wanted.serial.padEnd(64, 'c'))
  return wanted.serial
}
/** The store, with one thing about it changed. */
function bent(
  store: RevocationIntentions,
  change: Partial<RevocationIntentions>,
): RevocationIntentions {
  return {
    intendRevocation: (...args) => store.intendRevocation(...args),
    redeemRevocation: (...args) => store.redeemRevocation(...args),
    dropRevocation: (...args) => store.dropRevocation(...args),
    openRevocations: (...args) => store.openRevocations(...args),
    ...change,
  }
}
const stateOf = async (store: SqliteCaStore, serial: string) =>
  (await store.findCertificate(serial))?.state

describe('what is revoked', () => {
  const rows: readonly { name: string; of: (serial: string) => RevocationTarget; ends: number }[] =
    [
      { name: 'one serial', of: (serial) => ({ serial }), ends: 1 },
      { name: 'a device', of: () => ({ device: 'press-07' }), ends: 2 },
      { name: 'an issuer', of: () => ({ issuer: 'aa'.repeat(20) }), ends: 3 },
    ]
  test.for(rows)('$name: one event, then one row', async ({ of, ends }) => {
    const { store, events, desk } = await scene()
    const serial = await issued(store)
    await issued(store)
    await issued(store, { subject: 'press-08' })
    await issued(store, { subject: 'press-09', issuer: 'bb'.repeat(20) })
    const seen: (string | undefined)[] = []
    const log = async (event: CaEvent) => {
      // Durable before the act: at this moment nothing has ended yet.
      seen.push(await stateOf(store, serial))
      await desk.log(event)
    }
    const target = of(serial)
    const row = await revoke(target, { ...request, requestId: 'r_1' }, { store, log })
    expect(row.serials).toHaveLength(ends)
    // An issuer's key is not that of the devices it certified.
    const reason = 'issuer' in target ? 'cACompromise' : 'keyCompromise'
    expect(row).toMatchObject({ at: now, reason, target })
    expect(seen).toEqual(['active'])
    const common = { at: now, tenant: TENANT, requestId: 'r_1', remoteAddress: null }
    const said = { code: 'cert.revoke', target, reason, resumed: false }
    expect(events).toEqual([{ ...common, ...said }])
    expect(await store.revocationsSince(TENANT, 0)).toEqual([row])
    expect(await store.openRevocations(TENANT)).toEqual([])
  })

  test('a device’s tokens go with it', async () => {
    const { store, desk } = await scene()
    const token = tokenRow()
    await store.addToken(token)
    await revoke({ device: 'press-07' }, request, desk)
    expect((await store.findToken(TENANT, token.hash))?.revokedAt).toBe(now)
  })

  test('what ended before keeps its date and reason', async () => {
    const { store, desk } = await scene()
    const serial = await issued(store)
    await revoke({ serial }, request, desk)
    const late = { ...request, reason: 'superseded', now: instant(NOON + HOUR) } as const
    const row = await revoke({ device: 'press-07' }, late, desk)
    expect(row).toMatchObject({ epoch: 2, serials: [] })
    expect(await store.findCertificate(serial)).toMatchObject({
      revokedAt: now,
      revocationReason: 'keyCompromise',
    })
  })

  test('twenty at once: twenty epochs, one end', async () => {
    const { store, desk } = await scene()
    const serial = await issued(store)
    const rows = await Promise.all(
      Array.from({ length: 20 }, () => revoke({ serial }, request, desk)),
    )
    expect(new Set(rows.map(({ epoch }) => epoch)).size).toBe(20)
    expect(rows.flatMap(({ serials }) => serials)).toEqual([serial])
  })
})

describe('when something breaks', () => {
  test('no log: nothing is done, now or later', async () => {
    const { store, desk } = await scene()
    const serial = await issued(store)
    const dead = { store, log: () => Promise.reject(new Error('disk full')) }
    await expect(revoke({ serial }, request, dead)).rejects.toMatchObject({
      code: 'log.unavailable',
      fault: 'local',
    })
    expect(await stateOf(store, serial)).toBe('active')
    expect(await store.openRevocations(TENANT)).toEqual([])
    expect(await resumeRevocations(TENANT, now, desk)).toEqual([])
    expect(await stateOf(store, serial)).toBe('active')
  })

  test('killed between log and store: the next start does it, and says that it does', async () => {
    const before = await scene()
    const serial = await issued(before.store)
    const killed = new Promise<never>(() => {})
    const store = bent(before.store, {
      redeemRevocation: () => killed,
    })
    void revoke({ serial }, request, { store, log: before.desk.log })
    await expect.poll(() => before.events.length).toBe(1)
    expect(await stateOf(before.store, serial)).toBe('active')
    const after = await before.again()
    const late = instant(NOON + 60_000)
    const [row, ...others] = await resumeRevocations(TENANT, late, after.desk)
    expect(others).toEqual([])
    // The date is the one at which it was asked for: what the log said holds from then on.
    expect(row).toMatchObject({ serials: [serial], reason: 'keyCompromise', at: now })
    expect(await stateOf(after.store, serial)).toBe('revoked')
    expect(after.events).toMatchObject([{ code: 'cert.revoke', at: late, resumed: true }])
    expect(await resumeRevocations(TENANT, late, after.desk)).toEqual([])
  })

  test('an old intention of keyCompromise for an issuer is carried out as cACompromise: the devices keep their keys', async () => {
    const { store, events, desk } = await scene()
    const serial = await issued(store)
    const { spkiSha256 } = (await store.findCertificate(serial))!
    const target = { issuer: 'aa'.repeat(20) }
    await store.intendRevocation(TENANT, { target, reason: 'keyCompromise', at: now })
    const late = instant(NOON + 60_000)
    const rows = await resumeRevocations(TENANT, late, desk)
    expect(rows).toMatchObject([{ target, reason: 'cACompromise', at: now, serials: [serial] }])
    expect(events).toMatchObject([{ target, reason: 'cACompromise', resumed: true }])
    expect((await store.keyOwner(TENANT, spkiSha256))?.compromised).toBe(false)
    expect(await store.openRevocations(TENANT)).toEqual([])
  })

  test('each that is carried out late is told at once, also where the next one fails', async () => {
    const { store, desk } = await scene()
    const serials = [await issued(store), await issued(store)]
    for (const serial of serials)
      await store.intendRevocation(TENANT, { target: { serial }, reason: 'superseded', at: now })
    const told: (readonly string[])[] = []
    const failing = bent(store, {
      redeemRevocation: async (tenant, id) => {
        if (told.length > 0) throw new Error('busy')
        return await store.redeemRevocation(tenant, id)
      },
    })
    const carriedOut = async (row: RevocationRow) => void told.push(row.serials)
    const again = resumeRevocations(TENANT, now, { store: failing, log: desk.log, carriedOut })
    await expect(again).rejects.toMatchObject({ code: 'store.unavailable' })
    expect(told).toEqual([[serials[0]]])
  })

  test('killed before the log: done at the next start, with its event', async () => {
    const before = await scene()
    const serial = await issued(before.store)
    const log = () => new Promise<never>(() => {})
    void revoke({ serial }, request, { store: before.store, log })
    await expect.poll(async () => (await before.store.openRevocations(TENANT)).length).toBe(1)
    const after = await before.again()
    await resumeRevocations(TENANT, now, after.desk)
    expect(await stateOf(after.store, serial)).toBe('revoked')
    expect(after.events).toHaveLength(1)
  })

  test('a store that fails at the end: the caller is told, and it is done later', async () => {
    const { store, desk } = await scene()
    const serial = await issued(store)
    const failing = bent(store, {
      redeemRevocation: () => Promise.reject(new Error('busy')),
    })
    await expect(
      revoke({ serial }, request, { store: failing, log: desk.log }),
    ).rejects.toMatchObject({ code: 'store.unavailable' })
    expect(await stateOf(store, serial)).toBe('active')
    // Asked again meanwhile: it holds, and what is left over ends nothing twice.
    await revoke({ serial }, request, desk)
    expect(await stateOf(store, serial)).toBe('revoked')
    expect(await resumeRevocations(TENANT, now, desk)).toMatchObject([{ serials: [] }])
  })

  test('a store that fails at the start: no event', async () => {
    const { store, events, desk } = await scene()
    const failing = bent(store, {
      intendRevocation: () => Promise.reject(new Error('busy')),
    })
    const attempt = revoke({ device: 'press-07' }, request, { store: failing, log: desk.log })
    await expect(attempt).rejects.toMatchObject({ code: 'store.unavailable' })
    expect(events).toEqual([])
  })

  test('an intention is redeemed once, in its own tenant', async () => {
    const { store } = await scene()
    const target = { device: 'press-07' }
    const id = await store.intendRevocation(TENANT, { target, reason: 'superseded', at: now })
    await expect(store.redeemRevocation('other.sallyport.internal', id)).rejects.toThrow()
    await store.dropRevocation('other.sallyport.internal', id)
    const open = await store.openRevocations(TENANT)
    expect(open).toEqual([{ id, target, reason: 'superseded', at: now }])
    await store.redeemRevocation(TENANT, id)
    await expect(store.redeemRevocation(TENANT, id)).rejects.toThrow()
  })
})

describe('an intention to issue that nobody takes up', () => {
  const rows = [
    { name: 'within its window', recallUntil: NOON + HOUR, at: NOON + HOUR - 1, ends: false },
    { name: 'at the end of its window', recallUntil: NOON + HOUR, at: NOON + HOUR, ends: true },
    {
      name: 'without a window, while it may still be signed',
      recallUntil: NOON,
      at: NOON + 599_999,
      ends: false,
    },
    { name: 'without a window, after that', recallUntil: NOON, at: NOON + 600_000, ends: true },
  ]
  test.for(rows)('$name: revoked $ends', async ({ recallUntil, at, ends }) => {
    const { store, events, desk } = await scene()
    const wanted = intention({ recallUntil: instant(recallUntil) })
    await store.record(wanted)
    const active = await issued(store, { recallUntil: instant(recallUntil) })
    const ended = await revokeLapsed(TENANT, instant(at), desk)
    expect(ended).toEqual(ends ? [wanted.serial] : [])
    expect(await stateOf(store, wanted.serial)).toBe(ends ? 'revoked' : 'intent')
    expect(await stateOf(store, active)).toBe('active')
    expect(events).toHaveLength(ends ? 1 : 0)
    const listed = await store.revokedCertificates(TENANT, wanted.issuer, instant(at))
    expect(listed.map(({ serial }) => serial)).toEqual(ended)
    // A signature that comes now is not stored any more.
    if (ends)
      expect(await store.complete(wanted, Uint8Array.of(1), 'f'.repeat(64))).toMatchObject({
        state: 'revoked',
        certificate: null,
      })
  })
})
