/**
 * Bundles that a trusted key signed and no toolchain made, uploads that break off, and a node killed between
 * the record of an activation and its effect: refused with a code, and what decided before decides on.
 */
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { LoggedDecision, PolicyStatus, WhoCan } from '#api'
import { keyIdOf } from '#policy'
import { archiveDigest } from '../../../gateway/policy/slots.ts'
import { ENTRYPOINTS } from '../../../policy/points.ts'
import { handmade, resultSet, signedArchive, withoutVectors } from '../../policy/fixture.ts'
import type { Handmade } from '../../policy/fixture.ts'
import { besieged } from '../../support/besieged.ts'
import { send, startNode, until, type Person, type TestNode } from '../../support/node.ts'
import { attach, expecting, type FakeAgent, PLC, seen } from '../../support/tunnels.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-hostile-'))
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
const keyId = keyIdOf(pem)
let node: TestNode
let agent: FakeAgent

/** A bundle around a module made by hand, signed by the key that the node trusts. */
function crafted(seq: number, module: Handmade): Uint8Array<ArrayBuffer> {
  const changes = { ...withoutVectors(), 'policy.wasm': handmade(module) }
  return signedArchive({ key: privateKey, keyId, seq }, changes)
}

const denying = resultSet({
  v: 1,
  effect: 'deny',
  allow: false,
  reasons: [],
  denials: [{ code: 'lock.active', msg: 'access is locked' }],
  obligations: {},
})
const allowing = resultSet({
  v: 1,
  effect: 'allow',
  allow: true,
  reasons: [{ code: 'standing.access' }],
  denials: [],
  obligations: {},
})

const TYPE = 'application/vnd.openpolicyagent.bundles'
const upload = (person: Person, body: Uint8Array<ArrayBuffer>) =>
  person.fetch('/api/v1/policy/candidate', {
    method: 'POST',
    headers: { 'content-type': TYPE },
    body,
  })
const status = () => node.admin.ask<PolicyStatus>('GET', '/policy')

const trusting = (): string => {
  writeFileSync(join(folder, 'trust.pub'), pem)
  return `policy:\n  trust: [${JSON.stringify(join(folder, 'trust.pub'))}]\n`
}

beforeAll(async () => {
  node = await startNode({ config: trusting() })
  const device = await node.device('press-07', { plc: expecting() })
  agent = await attach(node, device, { listeners: { plc: seen(PLC, 'listener') } })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

describe('a module made by hand', () => {
  const rows: [string, Handmade, string, RegExp][] = [
    [
      'without the entry point of session.open',
      {
        evaluation: denying,
        entrypoints: ENTRYPOINTS.filter((name) => !name.includes('session/open')),
      },
      'module.entrypoint',
      /session\/open/,
    ],
    [
      'that needs a builtin nobody provides',
      { evaluation: denying, builtins: ['http.send'] },
      'module.builtin',
      /http\.send/,
    ],
    ['that does not end', { evaluation: 'loop' }, 'bundle.loops', /no answer within 1000 ms/],
    ['that takes memory without end', { evaluation: 'grow' }, 'module.eval', /device\.enroll/],
    ['that traps', { evaluation: 'trap' }, 'module.eval', /device\.enroll/],
    ['that aborts', { evaluation: 'abort' }, 'module.eval', /device\.enroll/],
    ['that calls a builtin unannounced', { evaluation: 'builtin' }, 'module.eval', /device/],
    ['whose decision is undefined', { evaluation: '[]' }, 'module.eval', /undefined/],
    [
      'that answers with something else',
      { evaluation: resultSet({ allow: true }) },
      'module.eval',
      /decision/,
    ],
  ]
  test.for(rows)('%s', async ([, module, code, detail]) => {
    const answer = await upload(node.admin, crafted(1, module))
    const body = (await answer.json()) as { code: string; detail: string; next_step: string }
    expect([answer.status, body.code]).toEqual([422, code])
    expect(body.detail).toMatch(detail)
    expect(body.next_step).toContain('what was in force still decides')
    expect(await status()).toMatchObject({ source: 'builtin', candidate: null, high_water: 0 })
  })
})

test('an upload that breaks off in the middle leaves nothing, and the next one is taken', async () => {
  const bytes = signedArchive({ key: privateKey, keyId, seq: 1 })
  let given = 0
  const broken = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (given >= bytes.length / 2) return controller.error(new Error('the line is down'))
      controller.enqueue(bytes.slice(given, (given += 8192)))
    },
  })
  const init = { method: 'POST', headers: { 'content-type': TYPE }, body: broken, duplex: 'half' }
  await expect(
    Promise.resolve(
      node.admin.fetch('/api/v1/policy/candidate', init as Parameters<Person['fetch']>[1]),
    ),
  ).rejects.toThrow()
  expect(given).toBeGreaterThan(bytes.length / 3)
  expect(readdirSync(join(node.data, 'policy'))).not.toContain('candidate.tar')
  expect(await status()).toMatchObject({ source: 'builtin', candidate: null })
  // One upload at a time: until the gateway has seen that the first is gone.
  const next = await until('the broken one is gone', async () => {
    const answer = await upload(node.admin, bytes)
    return answer.status !== 429 && answer
  })
  expect(next.status).toBe(200)
})

test('nobody is answered before any of their 16 MiB have come', async () => {
  const length = 16 * 1024 * 1024
  const query = 'manifest=x&stages=100&soak_s=0&max_failures=0&reason=x'
  for (const path of [`/rollouts?${query}`, '/policy/candidate', '/policy/impact'])
    for (const type of ['application/octet-stream', 'application/json']) {
      const headers = { 'content-type': type, 'content-length': String(length) }
      const answer = await send(node, { method: 'POST', path: `/api/v1${path}`, headers })
      expect([path, answer.status, answer.body.code]).toEqual([path, 401, 'token.missing'])
    }
})

/** A file system of a megabyte and a half at this place; needs root and mount(8). */
function smallDisk(path: string): boolean {
  mkdirSync(path, { recursive: true })
  return spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1536k', 'tmpfs', path]).status === 0
}
const disk = mkdtempSync(join(tmpdir(), 'sallyport-full-policy-'))
const mounted = smallDisk(join(disk, 'policy'))
afterAll(() => {
  if (mounted) spawnSync('umount', [join(disk, 'policy')])
  rmSync(disk, { recursive: true, force: true })
})

test.skipIf(!mounted)(
  'a full disk (needs a tmpfs to fill): neither kept nor activated, and both work once there is room',
  async () => {
    await using full = await startNode({ data: disk, config: trusting() })
    const asked = () => full.admin.ask<PolicyStatus>('GET', '/policy')
    const filler = join(disk, 'policy', 'filler')
    const fill = (left: number) => {
      const { bavail, bsize } = statfsSync(join(disk, 'policy'))
      writeFileSync(filler, new Uint8Array(Math.max(0, bavail * bsize - left)))
    }
    const first = signedArchive({ key: privateKey, keyId, seq: 1 })
    fill(64 * 1024)
    const refused = await upload(full.admin, first)
    expect([refused.status, await refused.json()]).toMatchObject([
      503,
      { code: 'log.unavailable', next_step: expect.stringContaining('make room') as unknown },
    ])
    expect(full.acts().at(-1)).toMatchObject({ code: 'policy.upload' })
    expect(full.acts().at(-1)?.text).toContain('not kept')
    expect(await asked()).toMatchObject({ source: 'builtin', candidate: null })

    rmSync(filler)
    expect((await upload(full.admin, first)).status).toBe(200)
    // The archive fits, what is remembered beside it does not.
    fill(Math.ceil(first.length / 4096) * 4096)
    const digest = archiveDigest(first)
    const half = await full.admin.call('POST', '/policy/activate', { digest })
    expect([half.status, half.body.code]).toEqual([503, 'log.unavailable'])
    expect(await asked()).toMatchObject({ source: 'builtin', seq: 0, high_water: 0 })
    expect(readdirSync(join(disk, 'policy')).toSorted()).toEqual([
      'candidate.tar',
      'filler',
      'state.json',
    ])

    rmSync(filler)
    await full.admin.ask('POST', '/policy/activate', { digest })
    expect(await asked()).toMatchObject({ source: 'active', seq: 1, high_water: 1 })
  },
)

/** Ends its own process, unasked, in the moment the activated archive would take its place. */
const DIES = `import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
const { renameSync } = fs
fs.renameSync = (from, to) => {
  if (String(to).endsWith('active.tar')) process.kill(process.pid, 'SIGKILL')
  renameSync(from, to)
}
syncBuiltinESMExports()
`

test('killed between the record of an activation and its effect: the next start carries it out', async () => {
  const preload = join(folder, 'dies.mjs')
  writeFileSync(preload, DIES)
  await using siege = await besieged({ preload, config: trusting() })
  const bytes = signedArchive({ key: privateKey, keyId, seq: 4 })
  expect((await upload(siege.node.admin, bytes)).status).toBe(200)
  const digest = archiveDigest(bytes)
  await expect(siege.node.admin.call('POST', '/policy/activate', { digest })).rejects.toThrow()
  expect(await siege.exited).toBe('SIGKILL')
  const { data, port } = siege.node
  expect(readdirSync(join(data, 'policy'))).not.toContain('active.tar')

  await using again = await startNode({ data, port, bare: true, config: trusting() })
  const after = await siege.node.admin.ask<PolicyStatus>('GET', '/policy')
  expect(after).toMatchObject({ source: 'active', seq: 4, high_water: 4, candidate: null })
  const said = again.events().filter(({ code }) => code === 'policy.activate')
  expect(said.map(({ message }) => message)).toEqual([
    'builtin policy active',
    'policy builtin-1 activated',
    'active policy active',
  ])
})

test('allowed by a standing right, without a grant: refused, and who-can says the same', async () => {
  const bytes = crafted(2, { evaluation: allowing })
  const answer = await upload(node.admin, bytes)
  expect([answer.status, await answer.text()]).toEqual([200, expect.any(String)])
  const digest = archiveDigest(bytes)
  await node.admin.ask('POST', '/policy/activate', { digest })
  const refused = await node.admin.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
  expect(refused).toMatchObject({
    status: 403,
    body: {
      code: 'grant.none',
      detail: expect.stringContaining('a session takes a grant') as unknown,
      next_step: 'Request a grant.',
    },
  })
  const id = refused.body.decision_id ?? ''
  expect(await node.admin.ask<LoggedDecision>('GET', `/decisions/${id}`)).toMatchObject({
    effect: 'allow',
    why: [{ code: 'standing.access' }],
  })
  const { items } = await node.admin.ask<WhoCan>(
    'GET',
    '/policy/who-can?device=press-07&process=plc',
  )
  expect(items).toMatchObject([{ effect: 'challenge', codes: ['grant.none'], grant: null }])
})
