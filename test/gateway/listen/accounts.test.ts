/** Who may do what to whose account: the operations that policy is asked about, and who must be left. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Account, Locked, MadeInvitation } from '#api'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import { archiveDigest, PolicySlots } from '../../../gateway/policy/slots.ts'
import { softKey } from '../../support/authenticator.ts'
import { openBrowser } from '../../support/browser.ts'
import { PASSWORD, startNode, type Person, type TestNode } from '../../support/node.ts'
import { challengeOf, openLink } from '../identity/guest.ts'

let data: string
let node: TestNode
let helper: Person
let from = 0

/** The built-in rules, where an engineer may change accounts and make none. */
function helpDesk(pem: Parameters<typeof signRelease>[1]['pem']): Uint8Array<ArrayBuffer> {
  const builtin = untrusted(readFileSync(BUILTIN_BUNDLE))
  const files = new Map([...builtin].filter(([name]) => !name.startsWith('vectors/')))
  const read = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name))) as object
  const rules = read('data.json') as { site: { roles: { engineer: Record<string, string> } } }
  rules.site.roles.engineer['account:change'] = 'any'
  files.set('data.json', Buffer.from(JSON.stringify(rules)))
  files.set('.manifest', Buffer.from(JSON.stringify({ ...read('.manifest'), revision: 'desk' })))
  return signRelease(files, { pem, seq: 1, iat: 1 }).archive
}

beforeAll(async () => {
  data = mkdtempSync(join(tmpdir(), 'sallyport-accounts-'))
  const key = newSigningKey()
  const trust = join(data, 'trust.pub')
  writeFileSync(trust, key.publicKey)
  const archive = helpDesk(key.privateKey)
  const mark = { seq: 1, digest: archiveDigest(archive) }
  const slots = PolicySlots.open(join(data, 'policy'))
  slots.promote(mark, archive)
  slots.settle(mark)
  node = await startNode({ data, config: `policy:\n  trust: [${JSON.stringify(trust)}]\n` })
  helper = await node.person('hal', { party: 'staff', roles: ['engineer'] })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(data, { recursive: true, force: true })
})
beforeEach(() => {
  from = node.size()
})

const subOf = async (email: string): Promise<string> => {
  const { items } = await node.admin.ask<{ items: Account[] }>('GET', `/accounts?email=${email}`)
  return items[0]?.sub ?? ''
}
const root = async () => await subOf('root@plant.example')

test('who may change accounts and make none gets no link into anybody’s', async () => {
  const [theirs, own] = [await root(), await subOf(helper.email)]
  expect((await helper.call('POST', `/accounts/${own}/enable`, {})).status).toBe(200)
  for (const sub of [theirs, own]) {
    const refused = await helper.call('POST', `/accounts/${sub}/renew`, {})
    expect([refused.status, refused.body.code]).toEqual([403, 'admin.role_missing'])
    expect(refused.text).not.toContain('/oidc/invitation')
  }
  expect(node.acts(from).map(({ message }) => message)).toEqual([
    `account:change account ${own} allowed`,
    expect.stringContaining('account changed'),
    `account:renew account ${theirs} refused`,
    `account:renew account ${own} refused`,
  ])
  const made = await node.admin.call<MadeInvitation>('POST', `/accounts/${own}/renew`, {})
  expect([made.status, made.body.invitation.renews]).toEqual([201, true])
})

const LAST = [409, 'account.last_admin']
const told = ({ status, text }: { status: number; text: string }) => [
  status,
  text.includes('account.last_admin') ? 'account.last_admin' : text,
]

test('the last administrator is not linked to somebody who is locked, whichever way round', async () => {
  const { email } = await node.person('ole', { party: 'staff', roles: ['operator'] })
  const [last, ole] = [await root(), await subOf(email)]
  const wanted = { scope: 'identity', target: email, reason: 'incident 9' }
  const { lock } = await node.admin.ask<Locked>('POST', '/locks', wanted)
  const link = async (one: string, to: string | null) =>
    await node.admin.call('POST', `/accounts/${one}/link`, { to })
  expect(told(await link(last, ole))).toEqual(LAST)
  expect(told(await link(ole, last))).toEqual(LAST)
  // Somebody who administers nothing may be, and is shut out when the answer is there.
  const own = await subOf(helper.email)
  expect((await link(own, ole)).status).toBe(200)
  expect((await helper.call('GET', '/accounts')).body.code).toBe('lock.active')
  expect((await link(own, null)).status).toBe(200)
  await node.admin.ask('POST', `/locks/${lock.id}/lift`, { reason: 'over' })
  expect((await link(last, ole)).status).toBe(200)
  expect((await link(last, null)).status).toBe(200)
})

test('an administrator without password and passkey is not the one who is left, and the one who is keeps theirs', async () => {
  const facts = { name: 'Pat', party: 'staff', roles: ['admin'], password: PASSWORD }
  const { sub } = await node.admin.ask<Account>('POST', '/accounts', {
    ...facts,
    email: 'pat@plant.example',
  })
  const withPasskey = async () => {
    await using browser = openBrowser(node.anchor)
    const { url } = await node.admin.ask<MadeInvitation>('POST', `/accounts/${sub}/renew`, {})
    const page = await openLink(node, browser, new URL(url).hash.slice(1))
    const credential = JSON.stringify(softKey(node.origin).register(challengeOf(page)))
    expect((await browser.submit(page, 'Use a passkey', { credential })).status).toBe(200)
  }
  const last = await root()
  const disable = async () => await node.admin.call('POST', `/accounts/${last}/disable`, {})
  const reset = async () => await helper.call('POST', `/accounts/${sub}/passkeys/remove`, {})
  await withPasskey()
  expect((await reset()).status).toBe(200)
  expect(told(await disable())).toEqual(LAST)
  await withPasskey()
  expect((await disable()).status).toBe(200)
  expect(told(await reset())).toEqual(LAST)
  expect((await helper.call('POST', `/accounts/${last}/enable`, {})).status).toBe(200)
  expect((await reset()).status).toBe(200)
})
