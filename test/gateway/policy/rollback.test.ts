/** Going back, changes at the same time, power cuts: what is in force is what somebody brought into force. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, onTestFinished, test, vi } from 'vitest'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import type { Account, PolicyActivated, PolicyImpact, PolicyStatus } from '#api'
import { PolicyService } from '../../../gateway/policy/service.ts'
import { archiveDigest, PolicySlots } from '../../../gateway/policy/slots.ts'
import { saveCredentials } from '../../../cli/login/index.ts'
import { run, type Ran } from '../../cli/run.ts'
import { startNode, until, type Person, type TestNode } from '../../support/node.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-rollback-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const key = newSigningKey()
writeFileSync(join(folder, 'trust.pub'), key.publicKey)
const builtin = untrusted(readFileSync(BUILTIN_BUNDLE))

/** The built-in rules under another name, where two people must agree if `pair` says so. */
function release(revision: string, seq: number, pair = false): Uint8Array<ArrayBuffer> {
  const files = new Map([...builtin].filter(([name]) => !name.startsWith('vectors/')))
  const read = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name))) as object
  const data = read('data.json') as { site: { settings: { second_person: string[] } } }
  if (pair) data.site.settings.second_person = ['policy:push']
  files.set('data.json', Buffer.from(JSON.stringify(data)))
  files.set('.manifest', Buffer.from(JSON.stringify({ ...read('.manifest'), revision })))
  return signRelease(files, { pem: key.privateKey, seq, iat: 1 }).archive
}
const markOf = (archive: Uint8Array, seq: number) => ({ seq, digest: archiveDigest(archive) })

async function start(data: string, more = '', bare = false): Promise<TestNode> {
  const trust = JSON.stringify(join(folder, 'trust.pub'))
  return await startNode({ data, bare, config: `policy:\n  trust: [${trust}]\n${more}` })
}
const upload = (person: Person, archive: Uint8Array) =>
  person.fetch('/api/v1/policy/candidate', {
    method: 'POST',
    headers: { 'content-type': 'application/vnd.openpolicyagent.bundles' },
    body: archive,
  })
const status = (person: Person) => person.ask<PolicyStatus>('GET', '/policy')

async function cli(person: Person, ...args: string[]): Promise<Ran> {
  const place = mkdtempSync(join(folder, 'home-'))
  await saveCredentials(join(place, 'credentials'), person.credentials)
  return run(place, 'policy', ...args)
}

test(
  'a rollback stays, though the source still serves what was left, and a person may bring it again',
  { timeout: 240_000 },
  async () => {
    const data = mkdtempSync(join(folder, 'node-'))
    const [good, bad] = [release('good', 1), release('bad', 2)]
    const slots = PolicySlots.open(join(data, 'policy'))
    slots.promote(markOf(good, 1), good)
    slots.settle(markOf(good, 1))
    slots.promote(markOf(bad, 2), bad)
    const drop = join(folder, 'drop.tar')
    writeFileSync(drop, bad)
    const source = `  source: { file: ${JSON.stringify(drop)}, poll_s: 1 }\n`
    await using node = await start(data, source)
    expect(await status(node.admin)).toMatchObject({ revision: 'bad', source: 'active' })
    await until(
      'the source has been looked at',
      async () => (await node.health()).policy_source?.state === 'OK',
    )
    expect(await status(node.admin)).toMatchObject({ last_good: { seq: 1 }, can_go_back: true })
    const seen = await cli(node.admin, 'rollback')
    expect([seen.code, seen.err]).toEqual([
      1,
      expect.stringMatching(/revision good, seq 1, will cut 0 of 0 live sessions[^]*add --yes/),
    ])
    expect(await status(node.admin)).toMatchObject({ revision: 'bad' })
    const back = await cli(node.admin, 'rollback', '--yes')
    expect(back.out).toMatch(/in force +good/)
    expect(await status(node.admin)).toMatchObject({ revision: 'good', high_water: 2 })
    const { out } = await cli(node.admin, 'status')
    expect(out).toMatch(/last good +seq 1\ncan go back +no/)
    expect(out).toMatch(/bundles from +\/.*drop\.tar: OK, looked at last 2/)
    expect((await node.health()).policy_source).toMatchObject({ state: 'OK', error: null })
    await node.stop()
    const events = node.size()
    const take = vi.spyOn(PolicyService.prototype, 'take')
    onTestFinished(() => take.mockRestore())
    await using again = await start(data, source, true)
    const looked = await until('the source was looked at', () =>
      take.mock.settledResults.find(({ type }) => type !== 'incomplete'),
    )
    expect(looked).toMatchObject({
      type: 'rejected',
      value: { code: 'policy.bundle', detail: 'people went back from this bundle' },
    })
    const began = again.events(events).filter(({ code }) => code === 'policy.activate')
    expect(began.map(({ message }) => message)).toEqual(['last-good policy active'])
  },
)

test('what is uploaded while another is activated waits, and does not come into force at the next start', async () => {
  const data = mkdtempSync(join(folder, 'node-'))
  const node = await start(data)
  const [first, second] = [release('first', 1), release('second', 2)]
  const impact = (await (await upload(node.admin, first)).json()) as PolicyImpact
  const [one, , other] = await Promise.all([
    node.admin.call('POST', '/policy/activate', { digest: impact.digest }),
    upload(node.admin, second),
    node.admin.call('POST', '/policy/activate', { digest: impact.digest }),
  ])
  // Whichever came first: what decides now decides after the next start, and nothing else does.
  const statuses = [one.status, other.status]
  for (const code of statuses) expect([200, 409]).toContain(code)
  const came = statuses.includes(200)
  const now = await status(node.admin)
  expect(now.revision).toBe(came ? 'first' : 'builtin-1')
  expect(now.candidate?.digest).toBe(archiveDigest(second))
  await node.stop()
  const active = join(data, 'policy', 'active.tar')
  if (came) expect(archiveDigest(readFileSync(active))).toBe(now.bundle_digest)
  else expect(existsSync(active)).toBe(false)
})

test('a promotion that a power cut halved is finished by the next start', async () => {
  const data = mkdtempSync(join(folder, 'node-'))
  const [first, second] = [release('first', 1), release('second', 2)]
  const slots = PolicySlots.open(join(data, 'policy'))
  slots.promote(markOf(first, 1), first)
  // The archive is in place, the mark is not.
  writeFileSync(join(data, 'policy', 'active.tar'), second)
  await using node = await start(data)
  expect(await status(node.admin)).toMatchObject({ revision: 'second', seq: 2, high_water: 2 })
})

test('where two must agree: not the same one, not their other account, not the place it came from', async () => {
  const data = mkdtempSync(join(folder, 'node-'))
  const pair = release('pair', 1, true)
  PolicySlots.open(join(data, 'policy')).promote(markOf(pair, 1), pair)
  const drop = join(folder, 'pair.tar')
  writeFileSync(drop, release('from-the-drop', 2, true))
  await using node = await start(data, `  source: { file: ${JSON.stringify(drop)}, poll_s: 1 }\n`)
  const second = await node.person('second', { party: 'staff', roles: ['admin'] })
  const other = await node.person('other', { party: 'staff', roles: ['admin'] })
  await until('what was dropped waits', async () => (await status(node.admin)).candidate !== null)
  const dropped = (await status(node.admin)).candidate?.digest ?? ''
  const activate = (person: Person, digest: string) =>
    person.call('POST', '/policy/activate', { digest })
  expect((await activate(node.admin, dropped)).body.code).toBe('admin.second_person')

  const { digest } = (await (
    await upload(second, release('by-hand', 3, true))
  ).json()) as PolicyImpact
  expect((await activate(second, digest)).body.code).toBe('admin.second_person')
  const { items } = await node.admin.ask<{ items: Account[] }>('GET', '/accounts')
  const subOf = ({ email }: Person) => items.find((one) => one.email === email)?.sub ?? ''
  await node.admin.ask('POST', `/accounts/${subOf(other)}/link`, { to: subOf(second) })
  expect((await activate(other, digest)).body.code).toBe('admin.second_person')
  expect((await activate(node.admin, digest)).status).toBe(200)
  // Once it is in force there is nothing left that anybody has to agree to.
  const once = await second.call<PolicyActivated>('POST', '/policy/activate', { digest })
  expect([once.status, once.body.already]).toEqual([200, true])
  // Going back narrows nothing that two had to agree to, and needs one.
  expect((await second.call('POST', '/policy/rollback', {})).body.code).toBe('policy.nothing_good')
})
