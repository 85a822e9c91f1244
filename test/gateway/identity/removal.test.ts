/** What was shown before a factor was taken off adds no other, whichever gateway's clock says when that was. */
import { expect, test } from 'vitest'
import { countedNow, noteRemoval, type RemovalRoom } from '../../../gateway/identity/removal.ts'
import { ACR_PASSKEY } from '../../../gateway/identity/passkeys/credential.ts'

const REMOVED = 1_000_000_500

/** Whether what was shown at `shownAt` still counts at `now`, where a factor was taken off at REMOVED. */
async function counts(shownAt: number, now: number, skewMs?: number): Promise<boolean> {
  const kept = new Map<string, Record<string, unknown>>()
  const oidcStore: RemovalRoom['oidcStore'] = {
    ...(skewMs === undefined ? {} : { skewMs }),
    upsert: async ({ id, payload }) => void kept.set(id, payload),
    find: async (_, id) => await Promise.resolve(kept.get(id)),
  }
  await noteRemoval({ oidcStore, now: () => REMOVED }, 's')
  const authn = { acr: ACR_PASSKEY, at: shownAt }
  const { shown } = await countedNow({ oidcStore, now: () => now }, 's', authn)
  return shown !== null
}

const SECOND = 1_000_000

test.for([
  [SECOND - 1, REMOVED + 900, false],
  [SECOND, REMOVED - 1, false],
  [SECOND, REMOVED + 1, true],
  [SECOND + 1, REMOVED + 900, true],
] as const)('by one clock, what was shown at %s and is used at %s: %s', async ([at, now, is]) => {
  expect(await counts(at, now)).toBe(is)
})

// The clock of who showed it may be ahead of the one that the removal was noted by.
test.for([
  [SECOND + 1, false],
  [SECOND + 10, false],
  [SECOND + 11, true],
] as const)('by the clocks of two gateways, what was shown at %s: %s', async ([at, is]) => {
  expect(await counts(at, at * 1000 + 900, 10_000)).toBe(is)
})
