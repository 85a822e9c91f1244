/**
 * What keeps an older policy out on a running node: the mark, which the log remembers too; the permit that
 * lets one older bundle back; the second person; and what a bundle past its age still allows.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import type { PolicyImpact, PolicyStatus } from '#api'
import { saveCredentials } from '../../../cli/login/index.ts'
import { archiveDigest } from '../../../gateway/policy/slots.ts'
import { run, type Ran } from '../../cli/run.ts'
import { startNode, type Person, type TestNode } from '../../support/node.ts'
import { expecting } from '../../support/tunnels.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-marks-'))
const data = mkdtempSync(join(tmpdir(), 'sallyport-marks-node-'))
const key = newSigningKey()
const builtin = untrusted(readFileSync(BUILTIN_BUNDLE))
const at = (...names: string[]) => join(folder, ...names)
let node: TestNode
let admin: Person
let second: Person

/** The built-in rules: two people roll a policy out, and the bundle's day was over long ago. */
function release(revision: string, seq: number): string {
  const files = new Map([...builtin].filter(([name]) => !name.startsWith('vectors/')))
  const read = (name: string): unknown => JSON.parse(new TextDecoder().decode(files.get(name)))
  const document = read('data.json') as { site: { settings: { second_person: string[] } } }
  document.site.settings.second_person = ['policy:push', 'lock:lift']
  const manifest = read('.manifest') as { metadata: { sallyport: object } }
  Object.assign(manifest, { revision })
  Object.assign(manifest.metadata.sallyport, { issued_at: 1, max_age_s: 1 })
  files.set('data.json', Buffer.from(JSON.stringify(document)))
  files.set('.manifest', Buffer.from(JSON.stringify(manifest)))
  const path = at(`${revision}.tar`)
  writeFileSync(path, signRelease(files, { pem: key.privateKey, seq, iat: 1 }).archive)
  return path
}

const digestOf = (path: string) => archiveDigest(readFileSync(path))

async function start(policy: string, bare = true): Promise<TestNode> {
  const config = `policy:\n  trust: [${JSON.stringify(at('trust.pub'))}]\n${policy}`
  return startNode({ data, config, bare, ...(bare ? { port: node.port } : {}) })
}

/** The same node again, its data changed meanwhile. */
async function again(policy = '', meanwhile: () => void = () => undefined): Promise<void> {
  await node.stop()
  meanwhile()
  node = await start(policy)
}

async function sallyport(person: Person, ...args: string[]): Promise<Ran> {
  const place = at(person.email)
  await saveCredentials(join(place, 'credentials'), person.credentials)
  return run(place, 'policy', ...args)
}

const status = () => admin.ask<PolicyStatus>('GET', '/policy')
const forget = () => rmSync(join(data, 'policy', 'state.json'))
const requested = async () =>
  second.call('POST', '/grants', {
    device: 'press-07',
    processes: ['plc'],
    duration_s: 600,
    reason: 'service',
  })

const one = release('one', 1)
const two = release('two', 2)

beforeAll(async () => {
  writeFileSync(at('trust.pub'), key.publicKey)
  writeFileSync(at('key.pem'), key.privateKey, { mode: 0o600 })
  node = await start('', false)
  admin = node.admin
  second = await node.person('second', { party: 'staff', roles: ['admin', 'engineer'] })
  await node.device('press-07', { plc: expecting() })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  for (const path of [folder, data]) rmSync(path, { recursive: true, force: true })
})

test('whoever uploaded does not activate, another does', async () => {
  await sallyport(admin, 'push', one)
  expect((await sallyport(admin, 'activate', digestOf(one))).code, 'the built-in asks nobody').toBe(
    0,
  )
  await sallyport(admin, 'push', two)
  const own = await sallyport(admin, 'activate', digestOf(two))
  expect(own.code).not.toBe(0)
  expect(own.err).toContain('admin.second_person')
  expect(await status()).toMatchObject({ revision: 'one', seq: 1 })
  const other = await sallyport(second, 'activate', digestOf(two))
  expect(other.code).toBe(0)
  expect(await status()).toMatchObject({ revision: 'two', seq: 2, high_water: 2 })
})

test('past its age a bundle begins nothing; where the configuration says warn, it does', async () => {
  expect((await requested()).body.code).toBe('policy.stale')
  await again('  staleness: warn\n')
  expect(await status()).toMatchObject({ revision: 'two', stale_at: 2 })
  expect((await requested()).status).toBe(201)
})

test('state.json is gone: the log remembers the mark, an older bundle stays out', async () => {
  await again('', forget)
  expect(await status()).toMatchObject({ revision: 'two', high_water: 2 })
  const ran = await sallyport(admin, 'push', one)
  expect([
    ran.code,
    /bundle\.rollback seq 1; the highest that was ever in force here is 2/.test(ran.err),
  ]).toEqual([1, true])
})

test('a downgrade permit: made, refused where it is not for this, used by two people, kept', async () => {
  const permit = async (out: string, ...args: string[]) =>
    sallyport(admin, 'permit', one, '--key', at('key.pem'), '--out', at(out), ...args)
  expect((await permit('needless', '--over', '1', '--for', '1h')).code).toBe(2)
  expect((await permit('other', '--over', '3', '--for', '1h')).code).toBe(0)
  const wrong = await sallyport(admin, 'push', one, '--permit', at('other'))
  expect(wrong.err).toContain('bundle.permit written for seq 3 in force')

  const made = await permit('back', '--over', '2', '--for', '1h')
  expect(made.out).toMatch(/goes back to +1\nover +2\nsha256 +[0-9a-f]{64}/)
  const pushed = await sallyport(admin, 'push', one, '--permit', at('back'))
  expect(pushed.out).toContain('revision one, seq 1')
  expect((await sallyport(second, 'activate', digestOf(one))).code).toBe(0)
  const token = readFileSync(at('back'), 'utf8').trim()
  const event = node.events().findLast(({ code }) => code === 'policy.activate')
  expect(JSON.parse(event?.text ?? '')).toMatchObject({
    unmapped: {
      sallyport: {
        seq: 1,
        high_water: 2,
        high_water_sha256: digestOf(two),
        permit_sha256: archiveDigest(Buffer.from(token)),
      },
    },
  })
  await again()
  expect(await status()).toMatchObject({ revision: 'one', seq: 1, high_water: 2, source: 'active' })
})

test('without state.json the permit is forgotten, the mark is not: nothing is let in', async () => {
  await again('', forget)
  const last = node.events().findLast(({ code }) => code === 'policy.activate')
  expect(last?.message).toBe('no policy could be verified: everything is denied')
  expect(last?.text).toContain('bundle.rollback')
  expect((await admin.call<PolicyImpact>('GET', '/policy')).body).toMatchObject({
    code: 'policy.unavailable',
  })
})
