/**
 * Bundles that a trusted key signed and no toolchain made, uploads that break off, and a node killed between
 * the record of an activation and its effect: refused with a code, and what decided before decides on.
 */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PolicyStatus, WhoCan } from '#api'
import { keyIdOf } from '#policy'
import { archiveDigest } from '../../../gateway/policy/slots.ts'
import { ENTRYPOINTS } from '../../../policy/points.ts'
import { handmade, resultSet, signedArchive, withoutVectors } from '../../policy/fixture.ts'
import type { Handmade } from '../../policy/fixture.ts'
import { startNode, type Person, type TestNode } from '../../support/node.ts'
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

beforeAll(async () => {
  writeFileSync(join(folder, 'trust.pub'), pem)
  const trust = JSON.stringify(join(folder, 'trust.pub'))
  node = await startNode({ config: `policy:\n  trust: [${trust}]\n` })
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
    ['that does not end', { evaluation: 'loop' }, 'bundle.loops', /5000 ms/],
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

test('allowed by a standing right, without a grant: refused, and who-can says the same', async () => {
  const bytes = crafted(1, { evaluation: allowing })
  const answer = await upload(node.admin, bytes)
  expect([answer.status, await answer.text()]).toEqual([200, expect.any(String)])
  const digest = archiveDigest(bytes)
  await node.admin.ask('POST', '/policy/activate', { digest })
  const refused = await node.admin.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
  expect(refused).toMatchObject({
    status: 403,
    body: { code: 'grant.none', next_step: 'Request a grant.' },
  })
  const { items } = await node.admin.ask<WhoCan>(
    'GET',
    '/policy/who-can?device=press-07&process=plc',
  )
  expect(items).toMatchObject([{ effect: 'challenge', codes: ['grant.none'], grant: null }])
})
