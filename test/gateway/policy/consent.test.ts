/** Who counts as one of the two people behind a policy. */
import { expect, test } from 'vitest'
import { consents, people } from '../../../gateway/policy/consent.ts'

const ISSUER = 'https://gw.example/oidc'
const ROBOT = `${ISSUER}|v_${'0'.repeat(26)}`
const [ANNA, ANNA_AGAIN, OTTO] = ['anna', 'anna2', 'otto'].map((sub) => `${ISSUER}|${sub}`) as [
  string,
  string,
  string,
]

test('a program is nobody, and two accounts of one are one', async () => {
  const personOf = async (id: string) => (id === ANNA_AGAIN ? ANNA : id)
  const rows = [[OTTO, ANNA], [ROBOT, ANNA], [ANNA, ROBOT], [ANNA, ANNA_AGAIN], [ROBOT]]
  expect(await Promise.all(rows.map(async (row) => people(row, personOf)))).toEqual([2, 1, 1, 1, 0])
})

test('what a person uploads they agree to; a program and a source agree to nothing', () => {
  const by = (who: string) =>
    consents({ slots: { state: { waiting: { digest: 'd', by: who } } } } as never, 'd')
  expect([by(ANNA), by(ROBOT), by('source policies')]).toEqual([[ANNA], [], []])
})
