/** What every implementation of the CA's stores must do: one suite, for SQLite and for Redis. */
import { expect, test } from 'vitest'
import {
  instant,
  type CaStore,
  type CrlNumbers,
  type Instant,
  type Intention,
  type PendingStore,
  type RevocationIntentions,
  type TokenRow,
} from '#ca'
import { race } from './race.ts'
import { HOUR, NOON, TENANT } from './support.ts'
import { waitingContract } from './waiting-contract.ts'

/** All that the CA keeps. */
export interface Stores {
  readonly store: CaStore & RevocationIntentions & CrlNumbers
  readonly pending: PendingStore
}
/** An empty one, and how others reach the same. */
export interface OpenedStores extends Stores {
  /** The same after it was closed, or by another connection. */
  readonly again: () => Promise<Stores>
  /** What racer.ts takes to open it in a process of its own. */
  readonly place: readonly string[]
}

const at = (hours: number): Instant => instant(NOON + hours * HOUR)
let count = 0

export function tokenRow(change: Partial<TokenRow> = {}): TokenRow {
  const id = `t_${String(++count).padStart(26, '0')}`
  return {
    id,
    hash: id.padEnd(64, 'f'),
    tenant: TENANT,
    profile: 'device',
    device: 'press-07',
    createdAt: at(0),
    expiresAt: at(1),
    revokedAt: null,
    binding: null,
    ...change,
  }
}

export function intention(change: Partial<Intention> = {}): Intention {
  const serial = (0x4000 + ++count).toString(16).padStart(32, '4')
  return {
    serial,
    tenant: TENANT,
    profile: 'device',
    subject: 'press-07',
    issuer: 'aa'.repeat(20),
    spkiSha256: serial.padEnd(64, '0'),
    notBefore: at(0),
    notAfter: at(72),
    tbs: Uint8Array.of(0x30, 0),
    recallKey: null,
    recallUntil: at(24),
    parent: null,
    tokenId: null,
    decisionId: null,
    requestId: null,
    recordedAt: at(0),
    ...change,
  }
}

const DER = Uint8Array.of(1, 2, 3)

async function issued(store: CaStore, change: Partial<Intention> = {}) {
  const wanted = intention(change)
  const outcome = await store.record(wanted)
  if (outcome.outcome !== 'fresh') throw new Error(outcome.outcome)
  return await store.complete(wanted, DER, wanted.serial.padEnd(64, 'e'))
}

/** Registers the suite; `open` gives empty stores each time. */
export function storeContract(open: () => Promise<OpenedStores>): void {
  waitingContract(open)

  test('two processes at once: one token, one intention, no number twice', async () => {
    const { store, place } = await open()
    const token = tokenRow()
    await store.addToken(token)
    const target = { device: 'press-09' }
    const asked = { target, reason: 'superseded', at: at(0) } as const
    const id = await store.intendRevocation(TENANT, asked)
    const told = await race(place, { token: token.id, revocation: id, count: 100 })
    const outcomes = told.flatMap((each) => each.outcomes)
    expect(outcomes.filter((each) => each === 'fresh')).toHaveLength(1)
    expect(outcomes.filter((each) => each === 'token.bound')).toHaveLength(199)
    expect(await store.listCertificates(TENANT)).toHaveLength(1)
    expect(told.filter((each) => each.redeemed)).toHaveLength(1)
    expect(await store.revocationsSince(TENANT, 0)).toHaveLength(1)
    const numbers = told.flatMap((each) => each.numbers)
    expect(new Set(numbers).size).toBe(200)
  })

  test('a token is found by tenant and hash, and by nothing else', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    expect(await store.findToken(TENANT, token.hash)).toEqual(token)
    expect(await store.findToken('other.sallyport.internal', token.hash)).toBeUndefined()
    expect(await store.findToken(TENANT, token.id)).toBeUndefined()
    expect(await store.listTokens(TENANT, 'press-07')).toEqual([token])
    expect(await store.listTokens(TENANT, 'press-08')).toEqual([])
  })

  test('two tokens with one hash: the second is refused', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    await expect(store.addToken(tokenRow({ hash: token.hash }))).rejects.toThrow()
  })

  test('a token is revoked once, in its own tenant', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    expect(await store.revokeToken('other.sallyport.internal', token.id, at(0))).toBe(false)
    expect(await store.revokeToken(TENANT, token.id, at(0))).toBe(true)
    expect(await store.revokeToken(TENANT, token.id, at(1))).toBe(false)
    expect((await store.findToken(TENANT, token.hash))?.revokedAt).toBe(at(0))
  })

  test('recording binds the token, and what was recorded survives reopening', async () => {
    const { store, again } = await open()
    const token = tokenRow()
    await store.addToken(token)
    const wanted = intention({
      tokenId: token.id,
      recallKey: 'r1',
      requestId: 'q',
      decisionId: 'd_1',
    })
    const outcome = await store.record(wanted)
    const row = {
      ...wanted,
      state: 'intent',
      certificate: null,
      fingerprint: null,
      firstUsedAt: null,
      revokedAt: null,
      revocationReason: null,
    }
    expect(outcome).toEqual({ outcome: 'fresh', row })
    const { store: reopened } = await again()
    expect(await reopened.findCertificate(wanted.serial)).toEqual(row)
    expect(await reopened.openIntentions(TENANT)).toEqual([row])
    expect((await reopened.findToken(TENANT, token.hash))?.binding).toEqual({
      spkiSha256: wanted.spkiSha256,
      serial: wanted.serial,
      at: at(0),
    })
  })

  test('the same request again is recalled, its new bytes are not kept', async () => {
    const { store } = await open()
    const first = intention({ recallKey: 'r1' })
    await store.record(first)
    const again = intention({ recallKey: 'r1', spkiSha256: first.spkiSha256 })
    expect(await store.record(again)).toMatchObject({
      outcome: 'recalled',
      row: { serial: first.serial },
    })
    expect(await store.findCertificate(again.serial)).toBeUndefined()
    expect((await store.recall('r1', at(0)))?.serial).toBe(first.serial)
  })

  const windows = [
    { name: 'a second before the window ends', ms: -1_000, found: true },
    { name: 'at the exact end of the window', ms: 0, found: false },
    { name: 'a second after', ms: 1_000, found: false },
  ]
  test.for(windows)('recall $name: $found', async ({ ms, found }) => {
    const { store } = await open()
    const first = intention({ recallKey: 'r1' })
    await store.record(first)
    const when = instant(first.recallUntil + ms)
    expect((await store.recall('r1', when)) !== undefined).toBe(found)
    const again = { recallKey: 'r1', spkiSha256: first.spkiSha256, recordedAt: when }
    const { outcome } = await store.record(intention(again))
    expect(outcome).toBe(found ? 'recalled' : 'fresh')
  })

  test('a revoked certificate is not recalled', async () => {
    const { store } = await open()
    const { serial } = await issued(store, { recallKey: 'r1' })
    await store.revoke(TENANT, { serial }, 'keyCompromise', at(0))
    expect(await store.recall('r1', at(0))).toBeUndefined()
  })

  test('certificates come page by page, newest first, whatever is issued between two', async () => {
    const { store } = await open()
    const serials: string[] = []
    for (let made = 0; made < 4; made++) serials.unshift((await issued(store)).serial)
    const names = async (filter: { after?: string; limit: number }) =>
      (await store.listCertificates(TENANT, filter)).map(({ serial }) => serial)
    expect(await names({ limit: 2 })).toEqual(serials.slice(0, 2))
    await issued(store)
    const [, second = ''] = serials
    expect(await names({ after: second, limit: 9 })).toEqual(serials.slice(2))
    expect(await names({ after: serials.at(-1) ?? '', limit: 9 })).toEqual([])
    expect(await names({ after: 'ff', limit: 9 })).toEqual([])
  })

  test('a token raced by two keys: one wins, the other leaves no row', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    const wanted = Array.from({ length: 20 }, () => intention({ tokenId: token.id }))
    const outcomes = await Promise.all(wanted.map((each) => store.record(each)))
    expect(outcomes.filter((each) => each.outcome === 'fresh')).toHaveLength(1)
    expect(outcomes.filter((each) => each.outcome === 'token.bound')).toHaveLength(19)
    expect(await store.listCertificates(TENANT)).toHaveLength(1)
  })

  const refused = [
    { name: 'unknown', row: null },
    { name: 'of another tenant', row: tokenRow({ tenant: 'other.sallyport.internal' }) },
    { name: 'of another device', row: tokenRow({ device: 'press-08' }) },
    { name: 'revoked', row: tokenRow({ revokedAt: at(0) }) },
    { name: 'expired this very moment', row: tokenRow({ expiresAt: at(0) }) },
  ]
  test.for(refused)('a token that is $name records nothing', async ({ row }) => {
    const { store } = await open()
    if (row !== null) await store.addToken(row)
    const wanted = intention({ tokenId: row?.id ?? 't_none' })
    expect(await store.record(wanted)).toEqual({ outcome: 'token.gone' })
    expect(await store.listCertificates(TENANT)).toEqual([])
  })

  test('the first certificate stored stays, however often it is stored', async () => {
    const { store } = await open()
    const wanted = intention()
    await store.record(wanted)
    const first = await store.complete(wanted, DER, 'f1')
    expect(first).toMatchObject({ state: 'active', certificate: DER, fingerprint: 'f1' })
    expect(await store.complete(wanted, Uint8Array.of(9), 'f2')).toEqual(first)
    expect((await store.findByFingerprint('f1'))?.serial).toBe(wanted.serial)
    expect(await store.findByFingerprint('f2')).toBeUndefined()
    expect(await store.openIntentions(TENANT)).toEqual([])
  })

  test('an intention revoked meanwhile gets no certificate', async () => {
    const { store } = await open()
    const wanted = intention()
    await store.record(wanted)
    await store.revoke(TENANT, { device: 'press-07' }, 'cessationOfOperation', at(0))
    expect(await store.complete(wanted, DER, 'f1')).toMatchObject({
      state: 'revoked',
      certificate: null,
    })
  })

  test('one key, one subject: also after the certificate has ended', async () => {
    const { store } = await open()
    const { spkiSha256, serial } = await issued(store)
    await store.revoke(TENANT, { serial }, 'superseded', at(0))
    expect(await store.keyOwner(TENANT, spkiSha256)).toEqual({
      profile: 'device',
      subject: 'press-07',
      compromised: false,
    })
    for (const other of [{ subject: 'press-08' }, { profile: 'gateway' }])
      expect(await store.record(intention({ spkiSha256, ...other }))).toEqual({
        outcome: 'key.bound',
      })
    expect((await store.record(intention({ spkiSha256 }))).outcome).toBe('fresh')
  })

  test('a compromised key: everything with it ends, nothing with it begins', async () => {
    const { store, again } = await open()
    const spkiSha256 = 'ab'.repeat(32)
    const old = await issued(store, { spkiSha256 })
    const next = await issued(store, { spkiSha256, parent: old.serial })
    const other = await issued(store)
    const row = await store.revoke(TENANT, { serial: old.serial }, 'keyCompromise', at(1))
    expect(row.serials.toSorted()).toEqual([old.serial, next.serial].toSorted())
    expect((await store.findCertificate(other.serial))?.state).toBe('active')
    const { store: reopened } = await again()
    expect(await reopened.keyOwner(TENANT, spkiSha256)).toMatchObject({ compromised: true })
    expect(await reopened.record(intention({ spkiSha256 }))).toEqual({
      outcome: 'key.compromised',
    })
    expect(await reopened.keyOwner(TENANT, other.spkiSha256)).toMatchObject({ compromised: false })
  })

  test('found to be compromised after it had ended for another reason: the reason changes, the date stays', async () => {
    const { store } = await open()
    const { serial, spkiSha256 } = await issued(store)
    await store.revoke(TENANT, { serial }, 'superseded', at(1))
    expect((await store.record(intention({ spkiSha256 }))).outcome).toBe('fresh')
    const row = await store.revoke(TENANT, { device: 'press-07' }, 'keyCompromise', at(2))
    expect(row.serials).toHaveLength(1)
    expect(await store.findCertificate(serial)).toMatchObject({
      revokedAt: at(1),
      revocationReason: 'keyCompromise',
    })
    expect((await store.record(intention({ spkiSha256 }))).outcome).toBe('key.compromised')
    await store.revoke(TENANT, { device: 'press-07' }, 'superseded', at(3))
    expect(await store.findCertificate(serial)).toMatchObject({
      revocationReason: 'keyCompromise',
    })
  })

  test('another certificate with a compromised key that had ended before: the reason changes, the date stays', async () => {
    const { store } = await open()
    const named = await issued(store)
    const { spkiSha256 } = named
    const sibling = await issued(store, { spkiSha256, issuer: 'bb'.repeat(20) })
    await store.revoke(TENANT, { serial: sibling.serial }, 'superseded', at(1))
    const row = await store.revoke(TENANT, { serial: named.serial }, 'keyCompromise', at(2))
    expect(row.serials).toEqual([named.serial])
    expect(await store.findCertificate(sibling.serial)).toMatchObject({
      revokedAt: at(1),
      revocationReason: 'keyCompromise',
    })
  })

  test('a key is compromised in its own tenant', async () => {
    const { store } = await open()
    const tenant = 'other.sallyport.internal'
    const { serial, spkiSha256 } = await issued(store)
    expect((await store.revoke(tenant, { serial }, 'keyCompromise', at(1))).serials).toEqual([])
    expect(await store.keyOwner(TENANT, spkiSha256)).toMatchObject({ compromised: false })
    await store.revoke(TENANT, { serial }, 'keyCompromise', at(1))
    expect((await store.record(intention({ tenant, spkiSha256 }))).outcome).toBe('fresh')
  })

  test('only an active certificate is renewed', async () => {
    const { store } = await open()
    const { serial } = await issued(store)
    expect((await store.record(intention({ parent: serial }))).outcome).toBe('fresh')
    await store.revoke(TENANT, { serial }, 'superseded', at(0))
    expect(await store.record(intention({ parent: serial }))).toEqual({ outcome: 'parent.ended' })
    expect(await store.record(intention({ parent: 'none' }))).toEqual({ outcome: 'parent.ended' })
  })

  test('the first use of a new certificate supersedes the used one and revokes the unused', async () => {
    const { store } = await open()
    const [old, lost, next] = [await issued(store), await issued(store), await issued(store)]
    const stranger = await issued(store, { subject: 'press-08' })
    expect(await store.proven(old.serial, at(0))).toEqual([])
    expect((await store.proven(next.serial, at(2))).toSorted()).toEqual(
      [old.serial, lost.serial].toSorted(),
    )
    expect(await store.proven(next.serial, at(3))).toEqual([])
    const state = async (serial: string) => (await store.findCertificate(serial))?.state
    expect(await state(old.serial)).toBe('superseded')
    expect(await state(lost.serial)).toBe('revoked')
    expect(await store.findCertificate(next.serial)).toMatchObject({
      state: 'active',
      firstUsedAt: at(2),
    })
    expect(await state(stranger.serial)).toBe('active')
  })

  test('using the old one leaves a newer one to be proven', async () => {
    const { store } = await open()
    const old = await issued(store)
    const next = await issued(store, { parent: old.serial })
    expect(await store.proven(old.serial, at(0))).toEqual([])
    expect((await store.findCertificate(next.serial))?.state).toBe('active')
  })

  test('of two made from one certificate, the one that is used revokes the other', async () => {
    const { store } = await open()
    const old = await issued(store)
    const [first, second] = [
      await issued(store, { parent: old.serial }),
      await issued(store, { parent: old.serial }),
    ]
    await store.proven(old.serial, at(0))
    await store.proven(first.serial, at(1))
    expect((await store.findCertificate(second.serial))?.state).toBe('revoked')
  })

  const targets = [
    { name: 'a serial', of: (serial: string) => ({ serial }), ends: 1 },
    { name: 'a device', of: () => ({ device: 'press-07' }), ends: 2 },
    { name: 'an issuer', of: () => ({ issuer: 'aa'.repeat(20) }), ends: 3 },
  ]
  test.for(targets)('revoking $name ends $ends', async ({ of, ends }) => {
    const { store } = await open()
    const { serial } = await issued(store)
    await issued(store)
    await issued(store, { subject: 'press-08' })
    await issued(store, { subject: 'gw-1', profile: 'gateway', issuer: 'bb'.repeat(20) })
    const row = await store.revoke(TENANT, of(serial), 'keyCompromise', at(1))
    expect(row).toMatchObject({ reason: 'keyCompromise', at: at(1), target: of(serial) })
    expect(row.serials).toHaveLength(ends)
    const again = await store.revoke(TENANT, of(serial), 'keyCompromise', at(2))
    expect(again).toMatchObject({ epoch: row.epoch + 1, serials: [] })
    expect(await store.revocationsSince(TENANT, row.epoch)).toEqual([again])
    expect(await store.listCertificates(TENANT, { state: 'revoked' })).toHaveLength(ends)
    const listed = await store.revokedCertificates(TENANT, 'aa'.repeat(20), at(2))
    expect(listed.map((each) => each.revokedAt)).toEqual(Array.from({ length: ends }, () => at(1)))
    expect(await store.revokedCertificates(TENANT, 'aa'.repeat(20), at(72))).toEqual([])
  })

  test('a revoked issuer records nothing more, but for the responders that tell of it', async () => {
    const { store, again } = await open()
    const issuer = 'aa'.repeat(20)
    const token = tokenRow()
    await store.addToken(token)
    await store.revoke('other.sallyport.internal', { issuer }, 'cACompromise', at(0))
    expect((await store.record(intention({ issuer }))).outcome).toBe('fresh')
    await store.revoke(TENANT, { issuer }, 'cACompromise', at(1))
    const { store: reopened } = await again()
    expect(await reopened.record(intention({ issuer, tokenId: token.id }))).toEqual({
      outcome: 'issuer.revoked',
    })
    const responder = { issuer, profile: 'ocsp', subject: 'gw-1' }
    expect((await reopened.record(intention(responder))).outcome).toBe('fresh')
    const other = { issuer: 'bb'.repeat(20), tokenId: token.id }
    expect((await reopened.record(intention(other))).outcome).toBe('fresh')
  })

  test('of a revoked issuer it is known why, that its key is in other hands before anything else', async () => {
    const { store, again } = await open()
    const [issuer, other] = ['aa'.repeat(20), 'bb'.repeat(20)]
    const why = async (of: Stores['store'], id = issuer) => await of.issuerRevocation(TENANT, id)
    await store.revoke('other.sallyport.internal', { issuer }, 'superseded', at(0))
    expect(await why(store)).toBeUndefined()
    await store.revoke(TENANT, { issuer }, 'superseded', at(1))
    expect(await why(store)).toBe('superseded')
    for (const reason of ['cACompromise', 'keyCompromise', 'superseded'] as const)
      await store.revoke(TENANT, { issuer }, reason, at(2))
    const { store: reopened } = await again()
    expect([await why(reopened), await why(reopened, other)]).toEqual(['keyCompromise', undefined])
  })

  test('certificates are counted by state, in their own tenant', async () => {
    const { store } = await open()
    const [old, lost] = [await issued(store), await issued(store)]
    await store.record(intention({ subject: 'press-08' }))
    const next = await issued(store)
    await store.proven(old.serial, at(0))
    await store.proven(next.serial, at(1))
    const counts = { intent: 1, active: 1, superseded: 1, revoked: 1 }
    expect(await store.countCertificates(TENANT)).toEqual(counts)
    expect((await store.findCertificate(lost.serial))?.state).toBe('revoked')
    expect((await store.countCertificates('other.sallyport.internal')).intent).toBe(0)
  })

  test('revoking a device takes its tokens along', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    await store.revoke(TENANT, { device: 'press-07' }, 'cessationOfOperation', at(0))
    expect((await store.findToken(TENANT, token.hash))?.revokedAt).toBe(at(0))
  })

  const terms = (lift = false) => ({ expiresAt: at(2), lift })

  test('a token whose certificate was revoked takes a new key once it is freed', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    const first = await issued(store, { tokenId: token.id })
    expect(await store.rebindToken(TENANT, token.id, terms())).toBe(false)
    await store.revoke(TENANT, { serial: first.serial }, 'superseded', at(1))
    expect(await store.rebindToken('other.sallyport.internal', token.id, terms())).toBe(false)
    expect(await store.rebindToken(TENANT, token.id, terms())).toBe(true)
    expect(await store.findToken(TENANT, token.hash)).toMatchObject({
      binding: null,
      expiresAt: at(2),
    })
    const next = intention({ tokenId: token.id, recordedAt: at(1) })
    expect((await store.record(next)).outcome).toBe('fresh')
  })

  test('an unused token is not freed, nor one that is not there', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    for (const lift of [false, true]) {
      expect(await store.rebindToken(TENANT, token.id, terms(lift))).toBe(false)
      expect(await store.rebindToken(TENANT, 't_none', terms(lift))).toBe(false)
    }
    expect(await store.findToken(TENANT, token.hash)).toEqual(token)
  })

  test('a revoked token is freed only where that is to be lifted', async () => {
    const { store } = await open()
    const [unused, used] = [tokenRow(), tokenRow()]
    for (const token of [unused, used]) await store.addToken(token)
    await issued(store, { tokenId: used.id })
    await store.revokeToken(TENANT, unused.id, at(0))
    await store.revoke(TENANT, { device: 'press-07' }, 'superseded', at(1))
    for (const { id, hash } of [unused, used]) {
      expect(await store.rebindToken(TENANT, id, terms())).toBe(false)
      expect(await store.rebindToken(TENANT, id, terms(true))).toBe(true)
      expect(await store.findToken(TENANT, hash)).toMatchObject({ binding: null, revokedAt: null })
      const next = intention({ tokenId: id, recordedAt: at(1) })
      expect((await store.record(next)).outcome).toBe('fresh')
    }
  })

  test('a used token is not revoked: what counts is its certificate', async () => {
    const { store } = await open()
    const token = tokenRow()
    await store.addToken(token)
    await issued(store, { tokenId: token.id })
    expect(await store.revokeToken(TENANT, token.id, at(1))).toBe(false)
    expect((await store.findToken(TENANT, token.hash))?.revokedAt).toBe(null)
  })

  test('certificates are listed newest first, by each filter, up to the limit', async () => {
    const { store } = await open()
    const first = await issued(store)
    const second = await issued(store, { subject: 'press-08', notAfter: at(1), recordedAt: at(1) })
    const serials = async (filter?: Parameters<CaStore['listCertificates']>[1]) =>
      (await store.listCertificates(TENANT, filter)).map((row) => row.serial)
    expect(await serials()).toEqual([second.serial, first.serial])
    expect(await serials({ subject: 'press-07' })).toEqual([first.serial])
    expect(await serials({ liveAt: at(1) })).toEqual([first.serial])
    expect(await serials({ profile: 'gateway' })).toEqual([])
    expect(await serials({ state: 'intent' })).toEqual([])
    expect(await serials({ limit: 1 })).toEqual([second.serial])
    expect(await store.listCertificates('other.sallyport.internal')).toEqual([])
  })
}
