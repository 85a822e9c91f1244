/** Who can: every account is asked about once, however many there are. */
import { expect, test } from 'vitest'
import type { Source } from '../../../gateway/facts.ts'
import type { Account, Identity } from '../../../gateway/identity/index.ts'
import { whoCan } from '../../../gateway/policy/who-can.ts'
import type { SessionRoom } from '../../../gateway/sessions/room.ts'

const COUNT = 1203
const accounts = Array.from({ length: COUNT }, (_, at) => ({
  sub: `a_${String(at).padStart(5, '0')}`,
  email: `p${at}@plant.example`,
  party: 'staff',
  vendor: null,
  groups: [],
  roles: [],
  disabled: at % 10 === 3,
})) as unknown as Account[]

const identity = {
  issuer: 'https://id.example',
  accounts: {
    list: (after: string, limit: number) =>
      Promise.resolve(accounts.filter(({ sub }) => sub > after).slice(0, limit)),
  },
} as unknown as Identity

const NOW_S = 1795082400
const grantOf = (sub: string) => ({
  statement: { id: `g_${sub}`, processes: ['plc'], not_before: 0, not_after: NOW_S + 60 },
  state: 'approved',
  first_used_at: null,
  approvals: [],
})
/** Who holds a live grant, beside a standing right of the zone. */
const holds = (id: string) => id.endsWith('17')

const room = {
  devices: {
    find: (id: string) =>
      Promise.resolve(
        id === 'press-07'
          ? { id, zone: 'default', state: 'active', labels: {}, created_at: 0 }
          : undefined,
      ),
    findProcess: () =>
      Promise.resolve({ id: 'plc', kind: 'tcp', locality: 'device', port: 502, expect: {} }),
  },
  grants: { applicable: (id: string) => Promise.resolve(holds(id) ? [grantOf(id)] : []) },
  registry: { find: () => undefined, isCutOff: () => false },
  allotments: { spare: () => 0 },
  decisions: {
    weigh: (_: string, { subject }: { subject: { email: string } }) => ({
      effect: subject.email.endsWith('7@plant.example') ? 'allow' : 'deny',
      allow: subject.email.endsWith('7@plant.example'),
      reasons: [{ code: 'standing.access' }],
      denials: [{ code: 'grant.none' }],
    }),
  },
  now: () => NOW_S * 1000,
} as unknown as SessionRoom

const source = { ip: '192.0.2.7' } as unknown as Source

test('page by page until nobody is left, those who may first on each', async () => {
  const people: string[] = []
  let after: string | undefined
  let pages = 0
  do {
    const page = await whoCan(room, identity, { device: 'press-07', process: 'plc', after }, source)
    const may = page.items.map(({ effect }) => effect === 'allow')
    expect(may).toEqual(may.toSorted((a, b) => Number(b) - Number(a)))
    people.push(...page.items.map(({ person }) => person))
    after = page.next ?? undefined
    pages++
  } while (after !== undefined)
  expect(pages).toBe(3)
  const enabled = accounts.filter(({ disabled }) => !disabled).map(({ email }) => email)
  expect(people.toSorted()).toEqual(enabled.toSorted())
})

test('a standing right without a grant: asked for one, as opening a session answers', async () => {
  const { items } = await whoCan(room, identity, { device: 'press-07', process: 'plc' }, source)
  const of = (name: string) => items.find(({ person }) => person === `${name}@plant.example`)
  expect(of('p17')).toMatchObject({ effect: 'allow', codes: ['standing.access'] })
  expect(of('p7')).toMatchObject({ effect: 'challenge', codes: ['grant.none'], grant: null })
})

test('a process that is not registered', async () => {
  const asked = whoCan(room, identity, { device: 'nowhere', process: 'plc' }, source)
  await expect(asked).rejects.toMatchObject({ code: 'target.unknown' })
})
