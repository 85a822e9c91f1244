/** The stores of a single node, under the contract that any other must pass too. */
import { onTestFinished } from 'vitest'
import { SqliteDeviceStore } from '../../../gateway/store/sqlite/devices.ts'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteInventoryStore } from '../../../gateway/store/sqlite/inventories.ts'
import { SqliteSessionStore } from '../../../gateway/store/sqlite/sessions.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import {
  deviceStoreContract,
  grantStoreContract,
  inventoryStoreContract,
  sessionStoreContract,
} from './contracts.ts'

async function thread(): Promise<SqliteThread> {
  const made = await SqliteThread.open(':memory:')
  onTestFinished(() => made[Symbol.asyncDispose]())
  return made
}

deviceStoreContract('SQLite', async () => new SqliteDeviceStore(await thread()))
grantStoreContract('SQLite', async () => new SqliteGrantStore(await thread()))
sessionStoreContract('SQLite', async () => new SqliteSessionStore(await thread()))
inventoryStoreContract('SQLite', async () => new SqliteInventoryStore(await thread()))
