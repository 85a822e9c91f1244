/** On a full disk operators can still sign in and act, and nobody else spends what is kept back for them. */
import { expect, test } from 'vitest'
import { spendOf } from '../../audit/reserve.ts'
import { identityEvent } from '../../gateway/events/identity.ts'
import type { IdentityEvent } from '../../gateway/identity/index.ts'

const common = { at: 1_750_000_000_000, source: '192.0.2.7', email: 'o@plant.test', client: 'cli' }
const who = { subject: 'i|olga', party: 'staff' } as const
const login = { code: 'auth.login', outcome: 'success', methods: ['pwd'], reason: null } as const
const wrong = { outcome: 'failure', methods: [], reason: 'password' } as const
const stepUp = { ...login, code: 'auth.stepup', purpose: 'step_up' } as const
const logout = { code: 'auth.logout', login: null, reason: 'signed_out' } as const

const rows: [string, IdentityEvent, string | null][] = [
  ['staff who sign in', { ...common, ...login, ...who }, 'breakglass'],
  ['staff who show a passkey', { ...common, ...stepUp, ...who }, 'breakglass'],
  ['staff who sign out: an end', { ...common, ...logout, ...who }, 'closeout'],
  ['a vendor who signs in', { ...common, ...login, ...who, party: 'vendor' }, null],
  ['a vendor who signs out: an end', { ...common, ...logout, ...who, party: 'vendor' }, 'closeout'],
  [
    'somebody who guesses at the password of staff',
    { ...common, ...login, ...who, ...wrong },
    null,
  ],
  [
    'staff whose password was right, before their passkey',
    { ...common, ...login, ...who, outcome: 'failure', reason: 'second_factor' },
    'breakglass',
  ],
  ['somebody who fails with a passkey of staff', { ...common, ...stepUp, ...who, ...wrong }, null],
  [
    'somebody whom nobody knows',
    { ...common, ...login, ...wrong, subject: null, party: null },
    null,
  ],
]
test.for(rows)('%s', ([, event, spend]) => expect(spendOf(identityEvent(event))).toBe(spend))
