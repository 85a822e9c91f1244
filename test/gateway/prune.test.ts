/** A node that lets go of old events while it serves: into the archive it was told of, for whoever may, and on the day. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createPrivateKey, randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AuditError, openLog, verifyLog, type AuditLog, type Pruned } from '#audit'
import type { PruneStatus } from '#api'
import { Retention } from '../../gateway/retention.ts'
import { credentialsDirectory, saveCredentials } from '../../cli/login/index.ts'
import { run, type Ran } from '../cli/run.ts'
import { freePort, startNode, TENANT, type TestNode } from '../support/node.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-prune-'))
const data = join(home, 'gateway')
const archive = join(home, 'archive')
const copy = join(home, 'copy')
const log = join(data, 'log', 'gw1', '1')
let node: TestNode

const key = (name: string) => createPrivateKey(readFileSync(join(data, 'keys', `${name}.key.pem`)))
const segments = (): string[] => readdirSync(join(log, 'seg')).toSorted()
const vkeys = (): string[] => readFileSync(join(data, 'log-keys.txt'), 'utf8').trim().split('\n')
const prune = (...flags: string[]): Promise<Ran> => run(home, '--json', 'audit', 'prune', ...flags)
const tomorrow = (): string => new Date(Date.now() + 86_400_000).toISOString().slice(0, 10)

beforeAll(async () => {
  const port = await freePort()
  mkdirSync(data)
  const first = await startNode({ data, port, bare: true })
  await first[Symbol.asyncDispose]()
  // As a year would leave it: in many segments.
  const between = await openLog({
    directory: log,
    origin: `${TENANT}/audit/gw1/1`,
    signers: { ed25519: key('log-ed25519'), mlDsa44: key('log-ml-dsa-44') },
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
    limits: { segmentBytes: 20_000 },
  })
  for (let n = 0; n < 20; n++)
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        between.append({
          code: 'session.stats',
          message: `minute ${n} of session ${i}`,
          status: 'success',
          session: 's_01j00000000000000000000000',
          data: { bytes_in: n, bytes_out: i, duration_ms: 60_000 },
        }),
      ),
    )
  await between.close()
  // While nobody writes: of a log that is being written a copy is of many moments, and need not hold.
  cpSync(log, copy, { recursive: true })
  mkdirSync(archive)
  node = await startNode({ data, port, config: `archive:\n  directory: ${archive}\n` })
  await saveCredentials(credentialsDirectory({ SALLYPORT_HOME: home }), node.admin.credentials)
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

test('nothing goes into an archive that does not hold the log, and the command says why', async () => {
  const before = segments()
  const ran = await prune('--before', tomorrow())
  expect(ran).toMatchObject({ code: 1 })
  expect(ran.err).toContain('prune.archive')
  expect(segments()).toEqual(before)
  expect(node.events().filter(({ code }) => code === 'log.prune')).toEqual([])
})

test('who may not prune does not, and that is in the log', async () => {
  const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const from = node.events().length
  const body = { before: 1, dry: false }
  expect(await vendor.call('POST', '/audit/prune', body)).toMatchObject({ status: 403 })
  expect(await vendor.call('GET', '/audit/prune')).toMatchObject({ status: 403 })
  expect(node.events(from).map(({ message }) => message)).toContainEqual(
    expect.stringMatching(/^audit:prune log .* refused$/),
  )
})

test('a running node prunes: who asked is recorded, the rest is proven, and the node serves on', async () => {
  cpSync(copy, archive, { recursive: true })
  const dry = await prune('--before', tomorrow(), '--dry-run')
  expect(JSON.parse(dry.out)).toMatchObject({ state: 'done', dry: true, pruned: { from: 0 } })
  const whole = segments()
  const ran = await prune('--before', tomorrow())
  expect(ran, ran.err).toMatchObject({ code: 0 })
  const { pruned } = JSON.parse(ran.out) as PruneStatus & { pruned: Pruned }
  expect(pruned.first).toBeGreaterThan(100)
  expect(segments()).toEqual(whole.slice(pruned.segments))
  const [said] = node.events().filter(({ code }) => code === 'log.prune')
  expect(said?.text).toContain(`"size":${pruned.first}`)
  expect(said?.text).toContain(node.admin.email)
  expect(await verifyLog({ directory: log, verifierKeys: vkeys() })).toMatchObject({
    outcome: 'proven',
    pruned: pruned.first,
  })
  expect(JSON.parse((await prune('--status')).out)).toMatchObject({ state: 'done' })
  const page = await node.admin.ask<{ entries: { idx: number }[] }>('GET', '/audit/events?from=0')
  expect(page.entries[0]).toMatchObject({ idx: pruned.first })
})

/** A log that says how it was pruned and does nothing. */
function asked(outcome: () => Promise<Pruned>, keepDays?: number) {
  const wanted: unknown[] = []
  const stub: Pick<AuditLog, 'prune' | 'origin'> = {
    origin: 'o',
    prune: (one) => {
      wanted.push(one)
      return outcome()
    },
  }
  const settings = {
    directory: '/archive',
    ...(keepDays === undefined ? {} : { keep_days: keepDays }),
  }
  const reported: string[] = []
  const now = Date.parse('2026-06-01T00:00:00Z')
  const retention = new Retention(
    stub,
    settings,
    () => now,
    (_error, what) => reported.push(what),
  )
  return { wanted, retention, reported, now }
}
const gone: Pruned = { origin: 'o', first: 9, from: 0, segments: 1, bytes: 1, heads: 0, held: '' }

test('once a day what is older than is to be kept goes by itself, and where nobody said how long nothing does', async () => {
  const { wanted, retention, now } = asked(async () => gone, 400)
  await using _ = retention
  retention.day()
  await retention.idle()
  expect(wanted).toEqual([{ archive: '/archive', before: now - 400 * 86_400_000, dry: false }])
  expect(retention.status).toMatchObject({ state: 'done', pruned: { first: 9 } })
  const other = asked(async () => gone)
  await using _other = other.retention
  other.retention.day()
  expect(other.wanted).toEqual([])
})

test('one that fails says so and leaves the next one free; one under way keeps others off', async () => {
  const { wanted, retention, reported } = asked(async () => {
    throw new AuditError('prune.archive', 'the archive does not hold')
  }, 1)
  await using _ = retention
  retention.day()
  expect(() => retention.begin({ before: 0, dry: true })).toThrow(/already/)
  retention.day()
  await retention.idle()
  expect(wanted).toHaveLength(1)
  expect(reported).toHaveLength(1)
  expect(retention.status).toMatchObject({ state: 'failed', why: { code: 'prune.archive' } })
  retention.begin({ before: 0, dry: true })
  await retention.idle()
  expect(wanted).toHaveLength(2)
})

test('a node that knows no archive says what to do', async () => {
  await using retention = new Retention(
    { origin: 'o', prune: async () => gone },
    undefined,
    () => 0,
    () => undefined,
  )
  expect(() => retention.begin({ before: 0, dry: false })).toThrow(/no archive is named/)
})
