/** What every implementation of the store of companies' providers must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type {
  AccountRow,
  IdentityStore,
  IdpRow,
  IdpStore,
} from '../../../../gateway/identity/store.ts'
import { NOW, type Make } from './make.ts'

const AT = NOW * 1000

export function companyCalled(id: string, more: Partial<IdpRow> = {}): IdpRow {
  return {
    id,
    name: 'Äcme ☃ "odd"',
    issuer: `https://id.${id}.example`,
    clientId: 'sallyport',
    auth: 'none',
    sealedSecret: null,
    ca: null,
    party: 'vendor',
    vendor: id,
    domains: [`${id}.example`],
    trustEmail: true,
    groupsClaim: 'groups',
    groups: {},
    roles: {},
    methods: { hwk: 'webauthn' },
    loginSeconds: 3600,
    listed: false,
    enabled: true,
    createdAt: AT,
    changedAt: AT,
    ...more,
  }
}

/** Somebody whom that company's provider signed in. */
function broughtBy(idp: string, sub: string): AccountRow {
  return {
    sub,
    email: `${sub}@${idp}.example`,
    name: sub,
    party: 'vendor',
    vendor: idp,
    groups: [],
    roles: ['vendor'],
    disabled: false,
    password: null,
    outside: { idp, issuer: `https://id.${idp}.example`, subject: sub },
    person: sub,
    createdAt: AT,
    changedAt: AT,
  }
}

interface Stores {
  readonly idps: IdpStore
  readonly accounts: IdentityStore
}

export function companyStoreContract(name: string, make: Make<Stores>): void {
  describe(`${name} as a store of companies`, () => {
    test('gives back what was put in, by id, and lists by it', async () => {
      const { idps } = await make()
      const all = ['acme', 'bolt', 'corp'].map((id) => companyCalled(id))
      for (const one of all.toReversed()) expect(await idps.addIdp(one)).toBe('added')
      const none = companyCalled('none', { domains: [], vendor: null, party: 'staff' })
      expect(await idps.addIdp(none)).toBe('added')
      expect(await idps.listIdps()).toEqual([...all, none])
      expect([await idps.findIdp('bolt'), await idps.findIdp('nobody')]).toEqual([
        all[1],
        undefined,
      ])
    })
    test('an id, an issuer with its client and a domain are one company’s, also where many come at once', async () => {
      const { idps } = await make()
      const one = companyCalled('acme')
      const all = await Promise.all(Array.from({ length: 9 }, async () => await idps.addIdp(one)))
      expect(all.toSorted()).toEqual(['added', ...Array<string>(8).fill('exists')])
      const { issuer, domains } = one
      expect(await idps.addIdp(companyCalled('bolt', { issuer }))).toBe('taken')
      const shared = companyCalled('bolt', { domains: ['bolt.example', ...domains] })
      expect(await idps.addIdp(shared)).toBe('taken')
      expect(await idps.addIdp(companyCalled('bolt', { issuer, clientId: 'other' }))).toBe('added')
    })
    test('there are a hundred at most', async () => {
      const { idps } = await make()
      for (let at = 0; at < 100; at++) await idps.addIdp(companyCalled(`c${at}`))
      expect(await idps.addIdp(companyCalled('more'))).toBe('full')
    })
    test('is switched off and on again', async () => {
      const { idps } = await make()
      const one = companyCalled('acme')
      await idps.addIdp(one)
      expect(await idps.setIdpEnabled('acme', false, AT + 5)).toBe(true)
      expect(await idps.findIdp('acme')).toEqual({ ...one, enabled: false, changedAt: AT + 5 })
      expect(await idps.setIdpEnabled('nobody', false, AT)).toBe(false)
    })
    test('that is removed takes its people along, and gives their addresses and its domains back', async () => {
      const { idps, accounts } = await make()
      await idps.addIdp(companyCalled('acme'))
      for (const sub of ['b', 'a']) await accounts.addAccount(broughtBy('acme', sub))
      expect(await idps.accountsOfIdp('acme')).toEqual(['a', 'b'])
      expect(await idps.removeIdp('acme', AT + 9)).toEqual(['a', 'b'])
      expect([await idps.findIdp('acme'), await idps.accountsOfIdp('acme')]).toEqual([
        undefined,
        [],
      ])
      expect(await accounts.findAccount('a')).toMatchObject({ disabled: true, changedAt: AT + 9 })
      expect(await accounts.findAccountByEmail('a@acme.example')).toBeUndefined()
      expect(await idps.addIdp(companyCalled('other', { domains: ['acme.example'] }))).toBe('added')
      expect(await idps.removeIdp('nobody', AT)).toEqual([])
    })
  })
}
