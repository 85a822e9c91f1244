/** The CA's contract on SQLite, and what only a file can show. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { SqliteCaStore } from '../../../gateway/store/sqlite/ca.ts'
import { SqlitePendingStore } from '../../../gateway/store/sqlite/enrolments.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { intention, storeContract, tokenRow, type Stores } from '../../ca/store-contract.ts'
import { TENANT } from '../../ca/support.ts'

const open: SqliteThread[] = []
const folders: string[] = []

function newPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-ca-'))
  folders.push(folder)
  return join(folder, 'store.sqlite')
}
async function stores(path: string): Promise<Stores> {
  const thread = await SqliteThread.open(path)
  open.push(thread)
  return { store: new SqliteCaStore(thread), pending: new SqlitePendingStore(thread) }
}
const start = async (path: string) => (await stores(path)).store
afterEach(async () => {
  for (const thread of open.splice(0)) await thread[Symbol.asyncDispose]()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

describe('the contract, on SQLite', () => {
  storeContract(async () => {
    const path = newPath()
    const again = async () => {
      for (const thread of open.splice(0)) await thread[Symbol.asyncDispose]()
      return await stores(path)
    }
    return { ...(await stores(path)), again, place: ['sqlite', path] }
  })
})

test('one token raced through two connections to one file: one row', async () => {
  const path = newPath()
  const stores = [await start(path), await start(path)]
  const token = tokenRow()
  await stores[0]!.addToken(token)
  const wanted = Array.from({ length: 40 }, () => intention({ tokenId: token.id }))
  const outcomes = await Promise.all(wanted.map((each, at) => stores[at % 2]!.record(each)))
  expect(outcomes.filter((each) => each.outcome === 'fresh')).toHaveLength(1)
  expect(outcomes.filter((each) => each.outcome === 'token.bound')).toHaveLength(39)
  expect(await stores[1]!.listCertificates(TENANT)).toHaveLength(1)
})
