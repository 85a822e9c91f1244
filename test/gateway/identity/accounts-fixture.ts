/** Accounts against the real store, with a virtual clock: what the tests of them start from, anew for each. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach } from 'vitest'
import {
  openAccounts,
  type Accounts,
  type IdentityChange,
  type IdentityEvent,
  type NewAccount,
} from '../../../gateway/identity/index.ts'
import { createPasswords } from '../../../gateway/identity/password.ts'
import { SqliteIdentityStore, SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'

// Cheap on purpose: what is tested here is what happens around the hash.
export const passwords = createPasswords({ memory: 64, passes: 1, parallelism: 1 })
export const issuer = 'https://gate.example/oidc'
export const by = { id: 'test', source: '192.0.2.1' }
export const staff: NewAccount = {
  email: 'Olga@Plant.Example',
  name: 'Olga Operator',
  party: 'staff',
  roles: ['operator'],
  password: 'correct horse battery staple',
}
export const admin: NewAccount = {
  ...staff,
  email: 'ada@plant.example',
  name: 'Ada',
  roles: ['admin'],
}

export let directory: string
export let thread: SqliteThread
export let store: SqliteIdentityStore
export let accounts: Accounts
export let now: number
export let events: IdentityEvent[]
export let changes: IdentityChange[]
export let logging: () => Promise<void>

/** Moves the clock that accounts read. */
export function advance(ms: number): void {
  now += ms
}
/** What the log does with each event from now on. */
export function logWith(act: () => Promise<void>): void {
  logging = act
}

/** Opens them before each test of a file, and closes them after it. */
export function eachWithAccounts(): void {
  beforeEach(open)
  afterEach(async () => {
    await thread[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })
}

async function open(): Promise<void> {
  directory = await mkdtemp(join(tmpdir(), 'sallyport-accounts-'))
  thread = await SqliteThread.open(join(directory, 'store.sqlite'))
  store = new SqliteIdentityStore(thread)
  now = 1_800_000_000_000
  events = []
  changes = []
  logging = async () => undefined
  accounts = openAccounts({
    issuer,
    store,
    oidcStore: new SqliteOidcStore(thread),
    async log(event) {
      await logging()
      events.push(event)
    },
    changed: (change) => changes.push(change),
    now: () => now,
    passwords,
  })
}
