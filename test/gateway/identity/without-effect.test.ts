/** What the log tells of invitations that come to nothing: nothing where that is known before, and that they did where not. */
import { expect, test } from 'vitest'
import { identityEvent } from '../../../gateway/events/identity.ts'
import { openInvitations } from '../../../gateway/identity/invitations/invitations.ts'
import type { IdentityEvent } from '../../../gateway/identity/index.ts'
import type { InvitationRow, InvitationStore } from '../../../gateway/identity/store.ts'
import { StoreError } from '../../../gateway/store/sqlite/thread.ts'
import { PASSWORD, SYSTEM } from './house.ts'

type Room = Parameters<typeof openInvitations>[0]

const NOW = 1_000_000
const LINK: InvitationRow = {
  id: 'i_1',
  hash: '',
  sub: 's',
  renews: false,
  email: 'gil@acme.example',
  name: 'Gil Guest',
  vendor: 'acme',
  groups: [],
  by: 'somebody',
  createdAt: 1,
  expiresAt: NOW * 2,
  closed: null,
}
const ASKED = { name: 'Gil Guest', vendor: 'acme', groups: [] }
const INVITED = { code: 'invitation.create', invitation: expect.stringMatching(/^i_/) as string }

/** What became of each event, as it stands in the log. */
const statuses = (events: readonly IdentityEvent[]) =>
  events.map((event) => {
    const { status, reason, message } = identityEvent(event)
    return [status, reason, message.startsWith('without effect: ')]
  })

/** One invitation that stands, a store that does as it is told, and what the log heard. */
function openRoom(store: Partial<InvitationStore>, more: Partial<Room> = {}) {
  const events: IdentityEvent[] = []
  const room: Partial<Room> = {
    issuer: 'iss',
    store: {
      take: async () => ({ allowed: true, retryAfterMs: 0 }),
      settle: async () => undefined,
    },
    accounts: {
      find: async () => undefined,
      findByEmail: async () => undefined,
      endLogins: async () => undefined,
    },
    passwords: { hash: async () => 'hash' } as unknown as Room['passwords'],
    idps: { forAddress: async () => undefined },
    log: async (event) => void events.push(event),
    now: () => NOW,
    ...more,
    invitationStore: {
      isTaken: async () => false,
      standingInvitations: async () => 0,
      findInvitation: async () => LINK,
      ...store,
    } as InvitationStore,
  }
  return { events, invitations: openInvitations(room as Room) }
}
const accept = async ({ invitations }: ReturnType<typeof openRoom>) =>
  invitations.accept('secret', { password: PASSWORD }, '192.0.2.1')

test('there are as many as there may be: nothing is told', async () => {
  const { events, invitations } = openRoom({ standingInvitations: async () => 1_000 })
  const code = 'invitation.full'
  await expect(invitations.invite(ASKED, SYSTEM)).rejects.toMatchObject({ code })
  expect(events).toEqual([])
})

test.for([
  ['exists', 'account.exists'],
  ['full', 'invitation.full'],
] as const)(
  'made at the same moment as another (%s): told that it was not',
  async ([outcome, code]) => {
    const { events, invitations } = openRoom({ addInvitation: async () => outcome })
    await expect(invitations.invite(ASKED, SYSTEM)).rejects.toMatchObject({ code })
    expect(events).toMatchObject([INVITED, { ...INVITED, failed: code }])
    expect(events[0]).not.toHaveProperty('failed')
  },
)

test('the address is somebody’s meanwhile: no account is told', async () => {
  const account = { sub: 'other' }
  const accounts = { findByEmail: async () => account } as unknown as Room['accounts']
  const room = openRoom({}, { accounts })
  await expect(accept(room)).rejects.toMatchObject({ code: 'account.exists' })
  expect(room.events).toEqual([])
})

test('a company’s provider has the address meanwhile: the link makes no account beside it', async () => {
  const idps = { forAddress: async () => ({ id: 'acme' }) } as unknown as Room['idps']
  const room = openRoom({}, { idps })
  await expect(accept(room)).rejects.toMatchObject({ code: 'invitation.company' })
  expect(room.events).toEqual([])
})

const lost: readonly (readonly [
  Awaited<ReturnType<InvitationStore['redeemInvitation']>>,
  string,
])[] = [
  ['taken', 'account.exists'],
  ['exists', 'passkey.exists'],
  ['closed', 'invitation.used'],
]
test.for(lost)(
  'an account that the store then does not take (%s): told that it is not there',
  async ([outcome, code]) => {
    const room = openRoom({ redeemInvitation: async () => outcome })
    await expect(accept(room)).rejects.toMatchObject({ code })
    const made = { code: 'account.create', subject: 'iss|s', by: 'invitation:i_1' }
    expect(room.events).toMatchObject([made, { ...made, failed: code }])
    expect(statuses(room.events)).toEqual([
      ['success', undefined, false],
      ['failure', code, true],
    ])
  },
)

test('a store that fails: told, and the failure goes on', async () => {
  const failure = new Error('the disk is gone')
  const redeemInvitation = async () => Promise.reject(failure)
  const room = openRoom({ redeemInvitation })
  await expect(accept(room)).rejects.toBe(failure)
  expect(room.events).toMatchObject([{}, { code: 'account.create', failed: 'store.unavailable' }])
})

test.for(['store.unavailable', 'store.replicas'])(
  'a store that gateways share does not confirm it (%s): told that nobody knows',
  async (code) => {
    const failure = new StoreError(code, 'Redis: Command timed out')
    const room = openRoom({ redeemInvitation: async () => Promise.reject(failure) })
    await expect(accept(room)).rejects.toBe(failure)
    const [made, unknown] = room.events.map(identityEvent)
    expect(unknown).toMatchObject({
      status: 'failure',
      reason: 'store.unavailable',
      message: `not known whether this took effect: ${made?.message}`,
      data: { ...made?.data, effect: 'unknown' },
    })
  },
)

test('a renewal that comes too late: told that nothing changed, and no login ends', async () => {
  const account = { sub: 's', disabled: false, email: LINK.email, name: LINK.name }
  const accounts = {
    find: async () => account,
    endLogins: async () => Promise.reject(new Error('nothing was renewed')),
  } as unknown as Room['accounts']
  const more = { findInvitation: async () => ({ ...LINK, renews: true }) }
  const room = openRoom({ ...more, renewAccount: async () => 'gone' }, { accounts })
  await expect(accept(room)).rejects.toMatchObject({ code: 'account.disabled' })
  const changed = { code: 'account.change', changes: { password: 'changed' } }
  expect(room.events).toMatchObject([changed, { ...changed, failed: 'account.disabled' }])
})

test('used while it is withdrawn: told that it was not withdrawn', async () => {
  const used = { ...LINK, closed: { at: NOW, how: 'used' } } as const
  const room = openRoom({ closeInvitation: async () => used })
  const code = 'invitation.used'
  await expect(room.invitations.revoke('i_1', SYSTEM)).rejects.toMatchObject({ code })
  const withdrawn = { code: 'invitation.revoke', invitation: 'i_1' }
  expect(room.events).toMatchObject([withdrawn, { ...withdrawn, failed: code }])
})
