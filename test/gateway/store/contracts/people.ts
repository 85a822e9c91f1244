/** What every implementation of the store of accounts must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { AccountRow, IdentityStore } from '../../../../gateway/identity/store.ts'
import { NOW, type Make } from './make.ts'

const AT = NOW * 1000

/** An account of this `sub`; an administrator unless it says otherwise. */
export function accountOf(sub: string, more: Partial<AccountRow> = {}): AccountRow {
  return {
    sub,
    email: `${sub}@plant.example`,
    name: 'Ädä ☃ "odd"',
    party: 'staff',
    vendor: null,
    groups: [],
    roles: ['admin'],
    disabled: false,
    password: '$argon2id$v=19$m=64,t=1,p=1$c2FsdA$aGFzaA',
    outside: null,
    person: sub,
    createdAt: AT,
    changedAt: AT,
    ...more,
  }
}

/** One whom a company's provider signed in. */
export function guestOf(sub: string, subject: string, more: Partial<AccountRow> = {}): AccountRow {
  const outside = { idp: 'acme', issuer: 'https://id.acme.example', subject }
  const vendor = { party: 'vendor', vendor: 'acme', roles: ['vendor'] } as const
  return accountOf(sub, { ...vendor, password: null, outside, ...more })
}

export function peopleStoreContract(name: string, make: Make<IdentityStore>): void {
  describe(`${name} as a store of accounts`, () => {
    const subs = (rows: readonly AccountRow[]) => rows.map(({ sub }) => sub)

    test('gives back what was put in, by sub, by address and by its name outside', async () => {
      const store = await make()
      const one = accountOf('a', { groups: ['ops', 'ö'], roles: [] })
      const guest = guestOf('b', 'x|"y')
      for (const row of [one, guest]) expect(await store.addAccount(row)).toBe(true)
      expect([await store.findAccount('a'), await store.findAccountByEmail(one.email)]).toEqual([
        one,
        one,
      ])
      expect(guest.outside && (await store.findAccountByOutside(guest.outside))).toEqual(guest)
      expect(await store.findAccount('c')).toBeUndefined()
      expect(await store.findAccountByEmail('B@plant.example')).toBeUndefined()
      const other = { idp: 'acme', issuer: 'https://id.acme.example', subject: 'x' }
      expect(await store.findAccountByOutside(other)).toBeUndefined()
    })

    test('makes no second one of a sub, an address or a name outside, also of two at once', async () => {
      const store = await make()
      const both = [accountOf('a'), accountOf('b', { email: 'a@plant.example' })]
      const made = await Promise.all(both.map(async (row) => await store.addAccount(row)))
      expect(made.filter(Boolean).length).toBe(1)
      const winner = (await store.listAccounts('', 9))[0]?.sub ?? ''
      expect(await store.addAccount(accountOf(winner, { email: 'z@plant.example' }))).toBe(false)
      expect(await store.addAccount(guestOf('g', 'one'))).toBe(true)
      expect(await store.addAccount(guestOf('h', 'one'))).toBe(false)
      expect(await store.findAccount('h')).toBeUndefined()
    })

    test('lists in the order of subs, behind one, as many as asked for', async () => {
      const store = await make()
      for (const sub of ['c', 'a', 'B', 'd']) await store.addAccount(accountOf(sub))
      expect(subs(await store.listAccounts('', 3))).toEqual(['B', 'a', 'c'])
      expect(subs(await store.listAccounts('a', 9))).toEqual(['c', 'd'])
      expect(subs(await store.listAccounts('d', 9))).toEqual([])
    })

    test('changes the fields that are named, and what others wrote meanwhile stays; the instant moves on', async () => {
      const store = await make()
      await store.addAccount(accountOf('a'))
      await store.addAccount(accountOf('b'))
      expect(await store.changeAccount({ sub: 'a', changedAt: AT, name: 'new' })).toBe('changed')
      const none = { sub: 'a', changedAt: AT - 9, password: null, roles: [], person: 'b' }
      expect(await store.changeAccount(none)).toBe('changed')
      const { changedAt, ...after } = (await store.findAccount('a')) ?? accountOf('?')
      expect({ ...after, changedAt: AT }).toEqual(
        accountOf('a', { name: 'new', password: null, roles: [], person: 'b' }),
      )
      expect(changedAt).toBe(AT + 2)
      expect(await store.changeAccount({ sub: 'a', changedAt: AT + 9, vendor: 'v' })).toBe(
        'changed',
      )
      expect(await store.findAccount('a')).toMatchObject({ vendor: 'v', changedAt: AT + 9 })
    })

    test('takes another address, gives the old one back, and takes nobody else’s', async () => {
      const store = await make()
      for (const sub of ['a', 'b']) await store.addAccount(accountOf(sub))
      const to = async (sub: string, email: string) =>
        await store.changeAccount({ sub, changedAt: AT, email })
      expect(await to('a', 'b@plant.example')).toBe('taken')
      expect(await to('a', 'a@plant.example')).toBe('changed')
      expect(await to('a', 'new@plant.example')).toBe('changed')
      expect((await store.findAccountByEmail('new@plant.example'))?.sub).toBe('a')
      expect(await store.findAccountByEmail('a@plant.example')).toBeUndefined()
      expect(await to('b', 'a@plant.example')).toBe('changed')
    })

    test('changes nothing of one that is unknown, moved, or disabled where it must not be', async () => {
      const store = await make()
      for (const sub of ['a', 'b']) await store.addAccount(accountOf(sub))
      const change = { sub: 'a', changedAt: AT + 1, name: 'new' }
      expect(await store.changeAccount({ ...change, sub: 'c' })).toBe('unknown')
      expect(await store.changeAccount(change, { changedAt: AT - 1 })).toBe('moved')
      expect(await store.findAccount('a')).toEqual(accountOf('a'))
      expect(await store.changeAccount(change, { changedAt: AT, enabled: true })).toBe('changed')
      await store.changeAccount({ sub: 'a', changedAt: AT + 2, disabled: true })
      expect(await store.changeAccount(change, { enabled: true })).toBe('disabled')
    })

    test('never loses the last administrator of its own, whichever way and however many go at once', async () => {
      const store = await make()
      await store.addAccount(accountOf('a'))
      await store.addAccount(accountOf('b'))
      await store.addAccount(
        guestOf('g', 'one', { roles: ['admin'], party: 'staff', vendor: null }),
      )
      await store.addAccount(accountOf('off', { disabled: true }))
      const gone = await Promise.all([
        store.changeAccount({ sub: 'a', changedAt: AT, disabled: true }),
        store.changeAccount({ sub: 'b', changedAt: AT, roles: ['operator'] }),
      ])
      expect(gone.toSorted()).toEqual(['changed', 'last_admin'])
      const left = gone[0] === 'changed' ? 'b' : 'a'
      expect(await store.changeAccount({ sub: left, changedAt: AT, disabled: true })).toBe(
        'last_admin',
      )
      expect(await store.changeAccount({ sub: 'off', changedAt: AT, disabled: false })).toBe(
        'changed',
      )
      expect(await store.changeAccount({ sub: left, changedAt: AT, disabled: true })).toBe(
        'changed',
      )
    })

    test('is begun by one token, once, while nobody is there', async () => {
      const store = await make()
      expect(await store.bootstrapHash()).toBeUndefined()
      for (const hash of ['one', 'two']) expect(await store.openBootstrap(hash)).toBe(true)
      expect([await store.bootstrapHash(), await store.bootstrapHash('two')]).toEqual([
        'two',
        'two',
      ])
      expect(await store.redeemBootstrap('one', accountOf('a'))).toBe('invalid')
      const both = await Promise.all(
        ['a', 'b'].map(async (sub) => await store.redeemBootstrap('two', accountOf(sub))),
      )
      expect(both.toSorted()).toEqual(['redeemed', 'spent'])
      expect((await store.listAccounts('', 9)).length).toBe(1)
      expect([await store.bootstrapHash(), await store.openBootstrap('three')]).toEqual([
        undefined,
        false,
      ])
      expect(await store.redeemBootstrap('two', accountOf('c'))).toBe('spent')
    })

    test('opens no token where an account is there', async () => {
      const store = await make()
      await store.openBootstrap('one')
      await store.addAccount(accountOf('a'))
      expect(await store.openBootstrap('two')).toBe(false)
      expect(await store.redeemBootstrap('one', accountOf('b'))).toBe('spent')
    })
  })
  attemptContract(name, make)
}

function attemptContract(name: string, make: Make<IdentityStore>): void {
  describe(`${name} as a counter of attempts`, () => {
    const wide = { key: 'source', limit: 9, windowMs: 1000 }
    const pair = { key: 'source:ada@plant.example', limit: 3, windowMs: 1000 }

    test('lets no more through than the limit, also at once, and counts none that it turned away', async () => {
      const store = await make()
      const all = await Promise.all(
        [1, 2, 3, 4, 5].map(async () => await store.take([pair, wide], AT)),
      )
      expect(all.filter(({ allowed }) => allowed).length).toBe(3)
      expect(all.at(-1)).toEqual({ allowed: false, retryAfterMs: 1000 })
      for (let at = 0; at < 6; at++) expect((await store.take([wide], AT)).allowed).toBe(true)
      expect(await store.take([wide], AT + 1)).toEqual({ allowed: false, retryAfterMs: 999 })
    })

    test('opens a whole window after the last attempt, and begins anew then', async () => {
      const store = await make()
      for (const at of [0, 500, 900]) await store.take([pair], AT + at)
      expect(await store.take([pair], AT + 1899)).toEqual({ allowed: false, retryAfterMs: 1 })
      for (const at of [1900, 1900, 1900])
        expect(await store.take([pair], AT + at)).toEqual({ allowed: true, retryAfterMs: 0 })
      expect((await store.take([pair], AT + 1900)).allowed).toBe(false)
    })

    test('forgets one, takes one off another, and never below none', async () => {
      const store = await make()
      for (let at = 0; at < 3; at++) await store.take([pair, wide], AT)
      await store.settle([pair.key], [wide.key, 'unheard of'])
      for (let at = 0; at < 3; at++) expect((await store.take([pair], AT)).allowed).toBe(true)
      await store.settle([], [pair.key])
      expect((await store.take([pair], AT)).allowed).toBe(true)
      expect((await store.take([pair], AT)).allowed).toBe(false)
      for (let at = 0; at < 5; at++) await store.settle([], [wide.key])
      for (let at = 0; at < 9; at++) expect((await store.take([wide], AT)).allowed).toBe(true)
      expect((await store.take([wide], AT)).allowed).toBe(false)
    })
  })
}
