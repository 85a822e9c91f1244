/** The stores of a single node, under the contract that any other must pass too. */
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test } from 'vitest'
import { SqliteAnswerStore } from '../../../gateway/store/sqlite/answers.ts'
import { SqliteAuditorStore } from '../../../gateway/store/sqlite/auditors.ts'
import { SqliteDeviceStore } from '../../../gateway/store/sqlite/devices.ts'
import { grantsRoom, SqliteGrantStore, WRITES } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteIdentityStore, SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteIdpStore } from '../../../gateway/store/sqlite/idps.ts'
import { SqliteInventoryStore } from '../../../gateway/store/sqlite/inventories.ts'
import { SqliteInvitationStore } from '../../../gateway/store/sqlite/invitations.ts'
import { SqliteLockStore } from '../../../gateway/store/sqlite/locks.ts'
import { SqlitePasskeyStore } from '../../../gateway/store/sqlite/passkeys.ts'
import { SqliteReviewStore } from '../../../gateway/store/sqlite/reviews.ts'
import { SqliteRolloutStore } from '../../../gateway/store/sqlite/rollouts.ts'
import { SqliteServiceStore } from '../../../gateway/store/sqlite/services.ts'
import { SqliteSessionStore } from '../../../gateway/store/sqlite/sessions.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { SqliteTotpStore } from '../../../gateway/store/sqlite/totp.ts'
import { answerStoreContract } from './contracts/answers.ts'
import { auditorStoreContract } from './contracts/auditors.ts'
import { companyStoreContract } from './contracts/companies.ts'
import { deviceStoreContract } from './contracts/devices.ts'
import { grantExtensionContract } from './contracts/extensions.ts'
import { factorContract } from './contracts/factors.ts'
import { grantStoreContract } from './contracts/grants.ts'
import { inventoryStoreContract } from './contracts/inventories.ts'
import { invitationStoreContract } from './contracts/invitations.ts'
import { lockStoreContract } from './contracts/locks.ts'
import { loginStoreContract } from './contracts/logins.ts'
import { peopleStoreContract } from './contracts/people.ts'
import { rolloutStoreContract } from './contracts/rollouts.ts'
import { sealContract } from './contracts/seals.ts'
import { serviceStoreContract } from './contracts/services.ts'
import { sessionStoreContract } from './contracts/sessions.ts'

async function thread(): Promise<SqliteThread> {
  const made = await SqliteThread.open(':memory:')
  onTestFinished(() => made[Symbol.asyncDispose]())
  return made
}

answerStoreContract('SQLite', async () => new SqliteAnswerStore(await thread()))
auditorStoreContract('SQLite', async () => new SqliteAuditorStore(await thread()))
deviceStoreContract('SQLite', async () => new SqliteDeviceStore(await thread()))
grantStoreContract('SQLite', async () => new SqliteGrantStore(await thread()))
grantExtensionContract('SQLite', async () => new SqliteGrantStore(await thread()))
sealContract('SQLite', async () => {
  const file = await thread()
  return { grants: new SqliteGrantStore(file), reviews: new SqliteReviewStore(file) }
})
sessionStoreContract('SQLite', async () => new SqliteSessionStore(await thread()))
companyStoreContract('SQLite', async () => {
  const file = await thread()
  return { idps: new SqliteIdpStore(file), accounts: new SqliteIdentityStore(file) }
})
invitationStoreContract('SQLite', async () => {
  const file = await thread()
  return {
    invitations: new SqliteInvitationStore(file),
    accounts: new SqliteIdentityStore(file),
    passkeys: new SqlitePasskeyStore(file),
    logins: new SqliteOidcStore(file),
  }
})
serviceStoreContract('SQLite', async () => new SqliteServiceStore(await thread()))
lockStoreContract('SQLite', async () => new SqliteLockStore(await thread()))
peopleStoreContract('SQLite', async () => new SqliteIdentityStore(await thread()))
loginStoreContract('SQLite', async () => new SqliteOidcStore(await thread()))
factorContract('SQLite', async () => {
  const file = await thread()
  return {
    passkeys: new SqlitePasskeyStore(file),
    totps: new SqliteTotpStore(file),
    logins: new SqliteOidcStore(file),
  }
})
rolloutStoreContract('SQLite', async () => new SqliteRolloutStore(await thread()))
inventoryStoreContract('SQLite', async () => new SqliteInventoryStore(await thread()))

test('grants to write are found by their index, however many others somebody has', () => {
  using db = new DatabaseSync(':memory:')
  for (const migration of grantsRoom.migrations) db.exec(migration)
  const plan = db.prepare(`EXPLAIN QUERY PLAN ${WRITES}`).all('a', 'b', 'c', 1, 1)
  expect(plan.map(({ detail }) => detail).join('; ')).toContain('access_grant_writes')
})
