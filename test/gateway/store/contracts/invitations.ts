/** What every implementation of the store of invitations must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type {
  AccountRow,
  IdentityStore,
  InvitationPlace,
  InvitationRow,
  InvitationStore,
  OidcStore,
  PasskeyRow,
  PasskeyStore,
} from '../../../../gateway/identity/store.ts'
import { NOW, type Make } from './make.ts'

const AT = NOW * 1000
const MOST = 99

export function invitationOf(id: string, more: Partial<InvitationRow> = {}): InvitationRow {
  return {
    id,
    hash: `of ${id}`,
    sub: `s-${id}`,
    renews: false,
    email: `${id}@acme.example`,
    name: 'Vära ☃ "odd"',
    vendor: 'acme',
    groups: [],
    by: 'iss|ada',
    createdAt: AT,
    expiresAt: AT + 1000,
    closed: null,
    ...more,
  }
}

function accountOf({ sub, email, name }: InvitationRow): AccountRow {
  const who = { sub, email, name, vendor: 'acme', groups: [], roles: ['vendor'], person: sub }
  const plain = { party: 'vendor', disabled: false, password: 'old', outside: null } as const
  return { ...who, ...plain, createdAt: AT, changedAt: AT }
}

function passkeyOf(id: string, sub: string): PasskeyRow {
  const key = { alg: 'ES256', spki: 's', cose: 'c', counter: 0, transports: ['usb'] } as const
  return { id, sub, name: 'key', ...key, backedUp: false, createdAt: AT, usedAt: null }
}

interface Stores {
  readonly invitations: InvitationStore
  readonly accounts: IdentityStore
  readonly passkeys: PasskeyStore
  readonly logins: OidcStore
}

export function invitationStoreContract(name: string, make: Make<Stores>): void {
  const redeem = async (
    { invitations }: Stores,
    row: InvitationRow,
    { at = AT + 1, passkey = null as PasskeyRow | null } = {},
  ) => await invitations.redeemInvitation(row.hash, accountOf(row), passkey, at)

  describe(`${name} as a store of invitations`, () => {
    test('gives back what was put in, by id and by hash, and how it was closed, once', async () => {
      const { invitations } = await make()
      const one = invitationOf('a')
      expect(await invitations.addInvitation(one, MOST)).toBe('added')
      expect(await invitations.findInvitation({ id: 'a' })).toEqual(one)
      expect(await invitations.findInvitation({ hash: one.hash })).toEqual(one)
      expect(await invitations.findInvitation({ id: 'of a' })).toBeUndefined()
      const closed = { at: AT + 5, how: 'revoked' } as const
      expect(await invitations.closeInvitation('a', AT + 5)).toEqual({ ...one, closed })
      expect(await invitations.closeInvitation('a', AT + 6)).toEqual({ ...one, closed })
      expect(await invitations.closeInvitation('x', AT)).toBeUndefined()
    })
    test('lists the newest first, page by page, those of one instant too', async () => {
      const { invitations } = await make()
      // Ten at a time are of one millisecond, and each page ends within an instant.
      for (let at = 0; at < 60; at++)
        await invitations.addInvitation(
          invitationOf(`i_${String(at).padStart(2, '0')}`, { createdAt: AT + Math.floor(at / 10) }),
          MOST,
        )
      const found: string[] = []
      for (let after: InvitationPlace | undefined; ;) {
        const rows = await invitations.listInvitations(17, after)
        found.push(...rows.map(({ id }) => id))
        after = rows.at(-1)
        if (after === undefined) break
      }
      expect(found).toHaveLength(60)
      expect(found).toEqual(found.toSorted().toReversed())
    })
    test('an address has one that stands, also where many come at once, or an account', async () => {
      const { invitations, accounts } = await make()
      const email = 'v@acme.example'
      const all = await Promise.all(
        Array.from(
          { length: 9 },
          async (_, at) => await invitations.addInvitation(invitationOf(`${at}`, { email }), MOST),
        ),
      )
      expect(all.toSorted()).toEqual(['added', ...Array<string>(8).fill('exists')])
      expect(await invitations.isTaken(email, AT + 999)).toBe(true)
      expect(await invitations.isTaken(email, AT + 1000)).toBe(false)
      const late = invitationOf('late', { email, createdAt: AT + 1000, expiresAt: AT + 2000 })
      expect(await invitations.addInvitation(late, MOST)).toBe('added')
      await accounts.addAccount(accountOf(invitationOf('w')))
      expect(await invitations.isTaken('w@acme.example', AT)).toBe(true)
      expect(await invitations.addInvitation(invitationOf('w'), MOST)).toBe('exists')
    })
    test('as many stand as may; those that are past make room', async () => {
      const { invitations } = await make()
      const add = async (id: string, at: number) =>
        await invitations.addInvitation(
          invitationOf(id, { createdAt: AT + at, expiresAt: AT + at + 100 }),
          2,
        )
      expect([await add('a', 0), await add('b', 50), await add('c', 50)]).toEqual([
        'added',
        'added',
        'full',
      ])
      expect(await invitations.standingInvitations(AT + 99)).toBe(2)
      expect([await add('c', 100), await add('d', 100)]).toEqual(['added', 'full'])
      await invitations.closeInvitation('b', AT + 101)
      expect(await add('d', 101)).toBe('added')
    })
    test('is redeemed once, by whoever is first: the account and its passkey are there', async () => {
      const stores = await make()
      const row = invitationOf('a')
      await stores.invitations.addInvitation(row, MOST)
      const all = await Promise.all(
        ['k1', 'k2', 'k3'].map(
          async (id) => await redeem(stores, row, { passkey: passkeyOf(id, row.sub) }),
        ),
      )
      expect(all.toSorted()).toEqual(['closed', 'closed', 'redeemed'])
      expect(await stores.accounts.findAccount(row.sub)).toEqual(accountOf(row))
      const held = await stores.passkeys.passkeysOf(row.sub)
      expect(held).toEqual([passkeyOf(held[0]?.id ?? '', row.sub)])
      const closed = { at: AT + 1, how: 'used' }
      expect(await stores.invitations.findInvitation({ id: 'a' })).toEqual({ ...row, closed })
    })
    test('nothing comes of one that is past, whose address or passkey is somebody’s, or that renews', async () => {
      const stores = await make()
      const { invitations, accounts, passkeys } = stores
      const rows = ['a', 'b', 'c', 'd', 'e'].map((id) => invitationOf(id, { renews: id === 'd' }))
      for (const row of rows) await invitations.addInvitation(row, MOST)
      const [a, b, c, d, e] = rows as [
        InvitationRow,
        InvitationRow,
        InvitationRow,
        InvitationRow,
        InvitationRow,
      ]
      await invitations.closeInvitation('b', AT)
      await accounts.addAccount({ ...accountOf(c), sub: 'other' })
      expect(await redeem(stores, a, { passkey: passkeyOf('k', a.sub) })).toBe('redeemed')
      expect([
        await redeem(stores, { ...a, hash: 'unknown' }),
        await redeem(stores, b),
        await redeem(stores, c, { passkey: passkeyOf('other', c.sub) }),
        await redeem(stores, d),
        await redeem(stores, e, { at: AT + 1000 }),
        await redeem(stores, e, { passkey: passkeyOf('k', e.sub) }),
      ]).toEqual(['closed', 'closed', 'taken', 'closed', 'closed', 'exists'])
      for (const { sub } of [b, c, d, e]) expect(await accounts.findAccount(sub)).toBeUndefined()
      expect(await passkeys.findPasskey('other')).toBeUndefined()
      expect(await redeem(stores, e)).toBe('redeemed')
    })
    test('a newer link into an account ends the older one; the ways in are those that were chosen, and whoever was in is out', async () => {
      const { invitations, accounts, passkeys, logins } = await make()
      const sub = 's-v'
      const link = (id: string) => invitationOf(id, { sub, renews: true, email: 'v@acme.example' })
      await accounts.addAccount(accountOf(link('x')))
      await invitations.addInvitation(invitationOf('other'), MOST)
      await logins.upsert({
        model: 'Grant',
        id: 'g',
        payload: { accountId: sub },
        expiresAt: AT + 99,
      })
      const times = { startedAt: AT, tokenUntil: AT + 99 }
      await logins.extendLogin({ login: 'g', sub, client: 'c', ...times })
      const by = { login: 'g', shown: null }
      expect(await passkeys.addPasskey(passkeyOf('lost', sub), 9, by)).toBe('added')
      for (const id of ['a', 'b']) await invitations.addInvitation(link(id), MOST)
      const renew = async (id: string, key: PasskeyRow | null, at = AT + 1) =>
        await invitations.renewAccount(`of ${id}`, key === null ? 'new' : null, key, at)
      expect([await renew('a', null), await renew('other', null)]).toEqual(['closed', 'closed'])
      expect(await renew('b', null, AT + 1000)).toBe('closed')
      expect(await logins.findLogin('g', AT)).toBeDefined()
      const all = await Promise.all([
        renew('b', passkeyOf('n1', sub)),
        renew('b', passkeyOf('n2', sub)),
      ])
      expect(all.toSorted()).toEqual(['closed', 'renewed'])
      expect((await accounts.findAccount(sub))?.password).toBeNull()
      expect((await passkeys.passkeysOf(sub)).map(({ id }) => id)).toHaveLength(1)
      expect(await passkeys.findPasskey('lost')).toBeUndefined()
      expect([await logins.findLogin('g', AT), await logins.hasLogins(sub)]).toEqual([
        undefined,
        false,
      ])
    })
    test('no way into an account that is gone, shut or its company’s, nor by a passkey of another', async () => {
      const stores = await make()
      const { invitations, accounts } = stores
      const guest = invitationOf('guest')
      await invitations.addInvitation(guest, MOST)
      await redeem(stores, guest, { passkey: passkeyOf('k', guest.sub) })
      const link = async (id: string, more: Partial<AccountRow>) => {
        const row = invitationOf(id, { renews: true })
        await accounts.addAccount({ ...accountOf(row), ...more })
        expect(await invitations.addInvitation(row, MOST)).toBe('added')
        return row
      }
      const outside = { idp: 'acme', issuer: 'https://id.acme.example', subject: 'x' }
      const rows = [
        await link('shut', { disabled: true }),
        await link('theirs', { outside, password: null }),
        await link('other', { sub: 'else' }),
      ]
      const said = []
      for (const { hash } of rows)
        said.push(await invitations.renewAccount(hash, 'new', null, AT + 1))
      expect(said).toEqual(['gone', 'gone', 'gone'])
      const { hash, sub } = await link('ours', {})
      const taken = passkeyOf('k', sub)
      expect(await invitations.renewAccount(hash, null, taken, AT + 1)).toBe('exists')
      expect((await accounts.findAccount(sub))?.password).toBe('old')
      expect(await invitations.renewAccount(hash, 'new', null, AT + 1)).toBe('renewed')
      expect((await accounts.findAccount(sub))?.password).toBe('new')
    })
  })
}
