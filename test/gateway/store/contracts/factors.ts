/** What every implementation of the stores of second factors must do, whatever keeps their rows. */
import { describe, expect, test } from 'vitest'
import type { OidcStore, PasskeyRow, PasskeyStore } from '../../../../gateway/identity/store.ts'
import type { TotpRow, TotpStore } from '../../../../gateway/identity/totp/store.ts'
import { NOW, type Make } from './make.ts'

const AT = NOW * 1000

/** Those that know of each other. */
export interface Factors {
  readonly passkeys: PasskeyStore
  readonly totps: TotpStore
  readonly logins: OidcStore
}

export function passkeyOf(id: string, more: Partial<PasskeyRow> = {}): PasskeyRow {
  return {
    id,
    sub: 'a',
    name: 'Schlüssel ☃',
    alg: 'ES256',
    spki: 'c3BraQ',
    cose: 'Y29zZQ',
    counter: 0,
    transports: [],
    backedUp: false,
    createdAt: AT,
    usedAt: null,
    ...more,
  }
}

export function appOf(more: Partial<TotpRow> = {}): TotpRow {
  const made = { sub: 'a', name: 'phone', sealed: 'c2VhbGVk', step: 7 }
  return { ...made, createdAt: AT, usedAt: null, ...more }
}

/** A login of `sub`, whose grant stands until `until`. */
export async function signedIn(
  logins: OidcStore,
  login: string,
  { sub = 'a', until = AT + 9000 }: { readonly sub?: string; readonly until?: number } = {},
): Promise<void> {
  const payload = { accountId: sub }
  await logins.upsert({ model: 'Grant', id: login, payload, expiresAt: until })
  await logins.extendLogin({ login, sub, client: 'cli', startedAt: AT, tokenUntil: AT + 500 })
}

export function factorContract(name: string, make: Make<Factors>): void {
  const plain = { login: 'l', shown: null }
  const byKey = { login: 'l', shown: 'passkey' } as const

  describe(`${name} as a store of passkeys`, () => {
    const ids = (rows: readonly PasskeyRow[]) => rows.map(({ id }) => id)

    test('gives back what was put in, the oldest of an account first', async () => {
      const { passkeys, logins } = await make()
      await signedIn(logins, 'l')
      const rows = [passkeyOf('k2', { createdAt: AT + 1, transports: ['usb'], counter: 4 })]
      rows.push(passkeyOf('k3', { backedUp: true }), passkeyOf('k1'))
      expect(await passkeys.addPasskey(rows[0] ?? passkeyOf('?'), 9, plain)).toBe('added')
      for (const row of rows.slice(1))
        expect(await passkeys.addPasskey(row, 9, byKey)).toBe('added')
      expect(await passkeys.findPasskey('k2')).toEqual(rows[0])
      expect(ids(await passkeys.passkeysOf('a'))).toEqual(['k1', 'k3', 'k2'])
      expect([await passkeys.findPasskey('k9'), await passkeys.passkeysOf('b')]).toEqual([
        undefined,
        [],
      ])
    })

    test('adds none twice, none above the most, none for a login that has ended', async () => {
      const { passkeys, logins } = await make()
      await signedIn(logins, 'l')
      await signedIn(logins, 'm', { sub: 'b' })
      await passkeys.addPasskey(passkeyOf('k1'), 2, plain)
      const others = { ...plain, login: 'm' }
      expect(await passkeys.addPasskey(passkeyOf('k1', { sub: 'b' }), 2, others)).toBe('exists')
      expect(await passkeys.addPasskey(passkeyOf('k2'), 2, byKey)).toBe('added')
      expect(await passkeys.addPasskey(passkeyOf('k3'), 2, byKey)).toBe('full')
      await logins.endLogin('l')
      expect(await passkeys.addPasskey(passkeyOf('k4'), 9, byKey)).toBe('ended')
    })

    test('adds none beside a factor that came meanwhile and was not shown, also of two at once', async () => {
      const { passkeys, logins } = await make()
      await signedIn(logins, 'l')
      const both = await Promise.all(
        ['k1', 'k2'].map(async (id) => await passkeys.addPasskey(passkeyOf(id), 9, plain)),
      )
      expect(both.toSorted()).toEqual(['added', 'moved'])
      const byCode = { login: 'l', shown: 'code' } as const
      expect(await passkeys.addPasskey(passkeyOf('k3'), 9, byCode)).toBe('moved')
    })

    test('takes a counter that goes up, once; of those that do not count any', async () => {
      const { passkeys, logins } = await make()
      await signedIn(logins, 'l')
      await passkeys.addPasskey(passkeyOf('k1', { counter: 3 }), 9, plain)
      await passkeys.addPasskey(passkeyOf('k2'), 9, byKey)
      const both = await Promise.all([1, 2].map(async () => await passkeys.usePasskey('k1', 4, AT)))
      expect(both.filter(Boolean).length).toBe(1)
      for (const counter of [4, 3, 0])
        expect(await passkeys.usePasskey('k1', counter, AT + 9)).toBe(false)
      expect(await passkeys.findPasskey('k1')).toMatchObject({ counter: 4, usedAt: AT })
      for (const counter of [0, 0, 1])
        expect(await passkeys.usePasskey('k2', counter, AT)).toBe(true)
      expect(await passkeys.usePasskey('k2', 0, AT)).toBe(false)
      expect(await passkeys.usePasskey('k9', 1, AT)).toBe(false)
    })

    test('removes its owner’s, not the last that must stay; and that one was shown counts no longer', async () => {
      const { passkeys, logins } = await make()
      await signedIn(logins, 'l')
      await passkeys.addPasskey(passkeyOf('k1'), 9, plain)
      await passkeys.addPasskey(passkeyOf('k2'), 9, byKey)
      await logins.stepUp('l', { methods: ['webauthn'], acr: 'x', at: NOW })
      expect(await passkeys.removePasskey('b', 'k1', 0)).toBe('unknown')
      expect(await passkeys.removePasskey('a', 'k1', 2)).toBe('last')
      expect((await logins.findLogin('l', AT))?.stepped).not.toBeNull()
      const both = await Promise.all(
        ['k1', 'k2'].map(async (id) => await passkeys.removePasskey('a', id, 1)),
      )
      expect(both.toSorted()).toEqual(['last', 'removed'])
      expect((await logins.findLogin('l', AT))?.stepped).toBeNull()
      expect((await passkeys.passkeysOf('a')).length).toBe(1)
    })
  })

  describe(`${name} as a store of authenticator apps`, () => {
    test('gives back what was put in, in place of what was there and of nothing else', async () => {
      const { totps, logins } = await make()
      await signedIn(logins, 'l')
      expect(await totps.putTotp(appOf(), AT, plain)).toBe('moved')
      expect(await totps.putTotp(appOf(), null, plain)).toBe('added')
      expect(await totps.findTotp('a')).toEqual(appOf())
      const byCode = { login: 'l', shown: 'code' } as const
      const next = appOf({ createdAt: AT + 5, step: 1, usedAt: AT, name: 'other' })
      expect(await totps.putTotp(next, null, byCode)).toBe('moved')
      expect(await totps.putTotp(next, AT, byCode)).toBe('added')
      expect(await totps.findTotp('a')).toEqual(next)
      expect([await totps.removeTotp('a'), await totps.removeTotp('a')]).toEqual([true, false])
      expect(await totps.findTotp('a')).toBeUndefined()
    })

    test('adds none for a login that has ended, nor beside a passkey that was not shown', async () => {
      const { totps, passkeys, logins } = await make()
      await signedIn(logins, 'l')
      await passkeys.addPasskey(passkeyOf('k1'), 9, plain)
      expect(await totps.putTotp(appOf(), null, plain)).toBe('moved')
      await logins.endLoginsOf('a')
      expect(await totps.putTotp(appOf(), null, byKey)).toBe('ended')
    })

    test('takes each step once, none before it, and none of an app that is not there any more', async () => {
      const { totps, logins } = await make()
      await signedIn(logins, 'l')
      await totps.putTotp(appOf(), null, plain)
      expect(await totps.useTotp('a', AT, 7, AT)).toBe(false)
      const both = await Promise.all(
        [1, 2].map(async () => await totps.useTotp('a', AT, 9, AT + 1)),
      )
      expect(both.filter(Boolean).length).toBe(1)
      expect(await totps.useTotp('a', AT, 8, AT + 2)).toBe(false)
      expect(await totps.useTotp('a', AT - 1, 10, AT + 2)).toBe(false)
      expect(await totps.useTotp('b', AT, 10, AT + 2)).toBe(false)
      expect(await totps.findTotp('a')).toEqual(appOf({ step: 9, usedAt: AT + 1 }))
    })
  })
}
