/** Who may do what to whose account: the operations that policy is asked about, and who must be left. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Account, MadeInvitation } from '#api'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import { archiveDigest, PolicySlots } from '../../../gateway/policy/slots.ts'
import { startNode, type Person, type TestNode } from '../../support/node.ts'

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
