/** What every implementation of the store of logins and of the provider's rows must do, whatever keeps them. */
import { describe, expect, test } from 'vitest'
import type { OidcStore } from '../../../../gateway/identity/store.ts'
import { signedIn } from './factors.ts'
import { NOW, type Make } from './make.ts'

const AT = NOW * 1000

export function loginStoreContract(name: string, make: Make<OidcStore>): void {
  const row = (model: string, id: string, payload: Readonly<Record<string, unknown>> = {}) => ({
    model,
    id,
    payload: { jti: id, kind: model, none: null, list: [], ...payload },
    expiresAt: AT + 1000,
  })
  const there = async (store: OidcStore, ...rows: readonly (readonly [string, string])[]) =>
    await Promise.all(rows.map(async ([model, id]) => (await store.find(model, id)) !== undefined))

  describe(`${name} as a store of the provider's rows`, () => {
    test('gives back what was put in, by id, uid and user code, of one model and no other', async () => {
      const store = await make()
      const session = row('Session', 's', { uid: 'u', accountId: 'a', text: 'ü☃"' })
      const code = row('DeviceCode', 'd', { userCode: 'BCDF', uid: 'u' })
      for (const one of [session, code]) await store.upsert(one)
      expect(await store.find('Session', 's')).toEqual(session.payload)
      expect(await store.findByUid('Session', 'u')).toEqual(session.payload)
      expect(await store.findByUid('DeviceCode', 'u')).toEqual(code.payload)
      expect(await store.findByUserCode('DeviceCode', 'BCDF')).toEqual(code.payload)
      expect(await store.find('DeviceCode', 's')).toBeUndefined()
      expect(await store.findByUserCode('Session', 'BCDF')).toBeUndefined()
      expect(await store.findByUid('Session', 'v')).toBeUndefined()
    })

    test('writes over one that is there, with what it is found by; and inserts none that is', async () => {
      const store = await make()
      await store.upsert(row('Session', 's', { uid: 'u' }))
      const next = row('Session', 's', { uid: 'v' })
      await store.upsert(next)
      expect([
        await store.findByUid('Session', 'u'),
        await store.findByUid('Session', 'v'),
      ]).toEqual([undefined, next.payload])
      const both = await Promise.all(
        [1, 2].map(async () => await store.insert(row('ReplayDetection', 'p'))),
      )
      expect(both.filter(Boolean).length).toBe(1)
      expect(await store.insert(row('Session', 's', { uid: 'w' }))).toBe(false)
      expect(await store.find('Session', 's')).toEqual(next.payload)
    })

    test('is used once, also by two at once, and says when', async () => {
      const store = await make()
      await store.upsert(row('AuthorizationCode', 'c'))
      const both = await Promise.all(
        [1, 2].map(async () => await store.consume('AuthorizationCode', 'c', NOW)),
      )
      expect(both.filter(Boolean).length).toBe(1)
      expect(await store.find('AuthorizationCode', 'c')).toMatchObject({ jti: 'c', consumed: NOW })
      expect(await store.consume('AuthorizationCode', 'gone', NOW)).toBe(false)
      await store.upsert(row('RefreshToken', 'r', { consumed: NOW }))
      expect(await store.consume('RefreshToken', 'r', NOW + 1)).toBe(false)
      expect(await store.find('RefreshToken', 'r')).toMatchObject({ consumed: NOW })
    })

    test('goes by itself, with all of a grant of one model, and with what had expired', async () => {
      const store = await make()
      await store.upsert(row('AccessToken', 't1', { grantId: 'g' }))
      await store.upsert(row('AccessToken', 't2', { grantId: 'h' }))
      await store.upsert(row('RefreshToken', 'r', { grantId: 'g' }))
      await store.upsert({ ...row('Session', 's', { uid: 'u' }), expiresAt: null })
      await store.destroy('AccessToken', 'nothing')
      await store.revokeByGrant('AccessToken', 'g')
      const all = [
        ['AccessToken', 't1'],
        ['AccessToken', 't2'],
        ['RefreshToken', 'r'],
        ['Session', 's'],
      ] as const
      expect(await there(store, ...all)).toEqual([false, true, true, true])
      await store.destroy('AccessToken', 't2')
      expect([await store.sweep(AT + 999), await store.sweep(AT + 1000)]).toEqual([0, 1])
      expect(await there(store, ...all)).toEqual([false, false, false, true])
    })
  })

  describe(`${name} as a store of logins`, () => {
    test('stands while its grant does, and lasts as long as its newest token', async () => {
      const store = await make()
      await signedIn(store, 'l')
      const login = { login: 'l', sub: 'a', client: 'cli', startedAt: AT }
      expect(await store.findLogin('l', AT)).toEqual({
        ...login,
        tokenUntil: AT + 500,
        stepped: null,
      })
      const later = { ...login, client: 'other', sub: 'b' }
      await store.extendLogin({ ...later, tokenUntil: AT + 400 })
      expect((await store.findLogin('l', AT))?.tokenUntil).toBe(AT + 500)
      await store.extendLogin({ ...later, tokenUntil: AT + 600 })
      expect(await store.findLogin('l', AT)).toMatchObject({ ...login, tokenUntil: AT + 600 })
      const authn = { methods: ['webauthn'], acr: 'x', at: NOW }
      expect([await store.stepUp('l', authn), await store.stepUp('m', authn)]).toEqual([
        true,
        false,
      ])
      expect((await store.findLogin('l', AT + 8999))?.stepped).toEqual(authn)
      expect(await store.findLogin('l', AT + 9000)).toBeUndefined()
      expect(await store.findLogin('m', AT)).toBeUndefined()
    })

    test('ends once, with its grant and every code and token under it, and with no other', async () => {
      const store = await make()
      for (const login of ['l', 'm']) {
        await signedIn(store, login)
        await store.upsert(row('RefreshToken', `of ${login}`, { grantId: login, accountId: 'a' }))
      }
      const both = await Promise.all([1, 2].map(async () => await store.endLogin('l')))
      expect(both.filter(Boolean).length).toBe(1)
      expect([await store.findLogin('l', AT), (await store.findLogin('m', AT))?.sub]).toEqual([
        undefined,
        'a',
      ])
      expect(
        await there(store, ['Grant', 'l'], ['RefreshToken', 'of l'], ['RefreshToken', 'of m']),
      ).toEqual([false, false, true])
    })

    test('ends of a person with all that waits to become one, and of nobody else', async () => {
      const store = await make()
      await signedIn(store, 'l')
      await signedIn(store, 'm')
      await signedIn(store, 'n', { sub: 'b' })
      await store.upsert(row('Session', 's', { accountId: 'a', uid: 'u' }))
      await store.upsert(row('Interaction', 'i', { result: { login: { accountId: 'a' } } }))
      await store.upsert(row('Session', 't', { accountId: 'b' }))
      expect((await store.endLoginsOf('a')).toSorted()).toEqual(['l', 'm'])
      expect(
        await there(
          store,
          ['Session', 's'],
          ['Interaction', 'i'],
          ['Session', 't'],
          ['Grant', 'l'],
        ),
      ).toEqual([false, false, true, false])
      expect([await store.hasLogins('a'), await store.hasLogins('b')]).toEqual([false, true])
      expect([await store.endLoginsOf('a'), await store.findByUid('Session', 'u')]).toEqual([
        [],
        undefined,
      ])
    })

    test.for(['Session', 'Grant', 'Interaction', 'IdpReturn', 'RefreshToken'])(
      'who has a %s and no token yet is signed in, or not',
      async (model) => {
        const store = await make()
        await store.upsert(row(model, 'x', { accountId: 'a' }))
        expect(await store.hasLogins('a')).toBe(model !== 'RefreshToken')
      },
    )

    test('is swept when its grant has gone, and not before', async () => {
      const store = await make()
      await signedIn(store, 'l', { until: AT + 100_000 })
      await store.sweep(AT + 600)
      expect((await store.findLogin('l', AT))?.login).toBe('l')
      await store.sweep(AT + 100_000)
      // Its grant went with that, so the next finds it without.
      await store.sweep(AT + 100_000)
      expect(await store.hasLogins('a')).toBe(false)
    })
  })
}
