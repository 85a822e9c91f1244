/** The policy in force, handed out: to whoever has it already, whoever waits, and a stock OPA. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { afterAll, expect, test } from 'vitest'
import { BUILTIN_BUNDLE, builtinDigest } from '#policy'
import { openOperations, type Health } from '../../../gateway/listen/operations.ts'
import { BundleServer } from '../../../gateway/policy/publish.ts'
import { statusReport, type Reported } from '../../../gateway/policy/report.ts'
import { readTar } from '../../../policy/tar.ts'
import { findOpa, processEnvironment } from '../../../policy/toolchain/opa.ts'
import { readVectors } from '../../../policy/toolchain/vectors.ts'
import { freePort, until } from '../../support/node.ts'

const opa = await findOpa(processEnvironment())
const folder = mkdtempSync(join(tmpdir(), 'sallyport-publish-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const archive = new Uint8Array(readFileSync(BUILTIN_BUNDLE))
const never = new AbortController().signal

function serving(): {
  readonly server: BundleServer
  readonly change: (digest: string | null) => void
} {
  let digest: string | null = builtinDigest
  const server = new BundleServer({ digest: () => digest, archive: () => archive })
  return { server, change: (to) => void (digest = to) }
}

test('whole as it came; as Rego without module and signature; 304 for whoever has it', async () => {
  const { server } = serving()
  const whole = await server.answer('/bundles/sallyport', {}, never)
  expect([whole.status, whole.headers['content-type']]).toEqual([
    200,
    'application/vnd.openpolicyagent.bundles',
  ])
  expect(gunzipSync(whole.body ?? '').equals(archive)).toBe(true)
  const rego = await server.answer('/bundles/sallyport-rego.tar.gz', {}, never)
  const names = [...readTar(new Uint8Array(gunzipSync(rego.body ?? ''))).keys()]
  expect(names).toContain('policy/default/access.rego')
  expect(names).not.toContain('policy.wasm')
  for (const answer of [whole, rego]) {
    const again = await server.answer(
      answer === rego ? '/bundles/sallyport-rego' : '/bundles/sallyport',
      { 'if-none-match': answer.headers['etag'] ?? '' },
      never,
    )
    expect([again.status, again.body]).toEqual([304, undefined])
  }
})

const labels = { id: 'gw1', version: '0', site: 'main', tenant: 't' }
const fares = (more: Partial<Reported['status']>, rest: Partial<Reported> = {}) =>
  statusReport({
    labels,
    status: { state: 'active', revision: 'r7', last_failure: null, activated_at: 1, ...more },
    source: undefined,
    journal: { state: 'OK' },
    ...rest,
  }).result

test('a status says in the words of OPA what decides, since when, and why nothing newer does', () => {
  expect(fares({})).toEqual({
    labels,
    bundles: {
      sallyport: {
        name: 'sallyport',
        active_revision: 'r7',
        type: 'snapshot',
        last_successful_activation: '1970-01-01T00:00:01Z',
        last_successful_request: '0001-01-01T00:00:00Z',
      },
    },
    plugins: { bundle: { state: 'OK' }, decision_logs: { state: 'OK' } },
  })
  const gone = { checked_at: 60, error: 'the bundle server answered 404' }
  expect(fares({}, { source: gone }).bundles.sallyport).toMatchObject({
    last_successful_request: '1970-01-01T00:01:00Z',
    code: 'bundle_error',
    message: gone.error,
  })
  const refused = { code: 'bundle.rollback', detail: '6 is older than 7' }
  expect(fares({ last_failure: refused }, { source: gone }).bundles.sallyport.message).toBe(
    'bundle.rollback 6 is older than 7',
  )
  const none = fares({ state: 'unavailable', revision: null }, { journal: { state: 'FAILED' } })
  expect(none.plugins).toEqual({
    bundle: { state: 'NOT_READY' },
    decision_logs: { state: 'ERROR' },
  })
  expect(none.bundles.sallyport).not.toHaveProperty('active_revision')
})

test('the port of operations says it, and to what else it does not know what it does', async () => {
  const told = fares({})
  const health = (): Health => ({ parts: { policy: false } }) as unknown as Health
  const { server: bundles } = serving()
  const policy = () => ({ result: told })
  await using port = await openOperations('127.0.0.1', 0, { health, policy, bundles })
  const base = `http://127.0.0.1:${port.address.port}`
  const ask = async (path: string, method = 'GET') => {
    const answer = await fetch(`${base}${path}`, { method })
    return [answer.status, await answer.json()]
  }
  // A query, as `?pretty=true` of people used to OPA, changes nothing.
  expect(await ask('/v1/status?pretty=true')).toEqual([200, { result: told }])
  expect(await ask('/healthz')).toEqual([200, { ready: false, parts: { policy: false } }])
  expect((await ask('/readyz'))[0]).toBe(503)
  for (const [path, method] of [
    ['/v1/status', 'POST'],
    ['/v1/data', 'GET'],
  ] as const)
    expect(await ask(path, method)).toEqual([404, { error: expect.stringContaining('/v1/status') }])
})

test.skipIf(opa === undefined)('a status has no field that a stock OPA does not have', async () => {
  const listen = await freePort()
  const config = {
    bundles: { sallyport: { resource: pathToFileURL(join(folder, 'none.tar.gz')).href } },
    status: { console: true },
  }
  writeFileSync(join(folder, 'status.json'), JSON.stringify(config))
  const about = ['--addr', `127.0.0.1:${listen}`, '--config-file', join(folder, 'status.json')]
  const child = spawn(opa?.path ?? '', ['run', '--server', ...about], { stdio: 'ignore' })
  try {
    const theirs = await until('OPA tells of its bundle', async () => {
      const answer = await fetch(`http://127.0.0.1:${listen}/v1/status`).catch(() => undefined)
      const body = (await answer?.json()) as { result?: ReturnType<typeof fares> } | undefined
      return body?.result?.bundles?.sallyport?.code === undefined ? undefined : body.result
    })
    const ours = fares({ last_failure: { code: 'bundle.tar', detail: 'no archive' } })
    expect(Object.keys(theirs)).toEqual(expect.arrayContaining(Object.keys(ours)))
    const known = [...Object.keys(theirs.bundles.sallyport), 'active_revision', 'type']
    expect(known).toEqual(expect.arrayContaining(Object.keys(ours.bundles.sallyport)))
    expect(theirs.bundles.sallyport).toMatchObject({
      name: 'sallyport',
      code: ours.bundles.sallyport.code,
      last_successful_activation: '0001-01-01T00:00:00Z',
    })
  } finally {
    child.kill('SIGTERM')
  }
})

test('other paths, and a node without a policy: 404', async () => {
  const { server, change } = serving()
  for (const path of ['/bundles/', '/bundles/other', '/bundles/sallyport/../x'])
    expect((await server.answer(path, {}, never)).status, path).toBe(404)
  change(null)
  expect((await server.answer('/bundles/sallyport', {}, never)).status).toBe(404)
})

test('whoever waits hears of a change, and a connection that goes ends the waiting', async () => {
  const { server, change } = serving()
  const { headers } = await server.answer('/bundles/sallyport', {}, never)
  const waiting = { 'if-none-match': headers['etag'] ?? '', prefer: 'modes=snapshot,delta;wait=60' }
  const told = server.answer('/bundles/sallyport', waiting, never)
  change('f'.repeat(64))
  expect((await told).headers['etag']).toBe(`"${'f'.repeat(64)}"`)
  const gone = new AbortController()
  const left = server.answer(
    '/bundles/sallyport',
    { ...waiting, 'if-none-match': `"${'f'.repeat(64)}"` },
    gone.signal,
  )
  gone.abort()
  expect((await left).status).toBe(304)
})

test.skipIf(opa === undefined)('a stock OPA takes it and decides alike', async () => {
  const { server } = serving()
  const http = createServer((request, response) => {
    void server.answer(request.url?.split('?')[0] ?? '', request.headers, never).then((answer) => {
      response.writeHead(answer.status, answer.headers)
      response.end(answer.body)
    })
  })
  await new Promise<void>((resolve) => void http.listen(0, '127.0.0.1', resolve))
  const { port } = http.address() as AddressInfo
  const config = {
    services: { sallyport: { url: `http://127.0.0.1:${port}` } },
    bundles: { sallyport: { service: 'sallyport', resource: 'bundles/sallyport-rego' } },
  }
  writeFileSync(join(folder, 'opa.json'), JSON.stringify(config))
  const listen = await freePort()
  const args = [
    'run',
    '--server',
    '--addr',
    `127.0.0.1:${listen}`,
    '--config-file',
    join(folder, 'opa.json'),
  ]
  const child = spawn(opa?.path ?? '', args, { stdio: 'ignore' })
  try {
    const vector = (await readVectors()).find(({ name }) => name === 'another executable')
    const decision = await until('OPA decides', async () => {
      const answer = await fetch(
        `http://127.0.0.1:${listen}/v1/data/sallyport/session/open/decision`,
        {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ input: vector?.input }),
        },
      ).catch(() => undefined)
      const body = (await answer?.json()) as
        | { result?: { effect: string; denials: unknown[] } }
        | undefined
      return body?.result
    })
    expect(decision).toMatchObject({ effect: 'deny', denials: [{ code: 'process.mismatch' }] })
  } finally {
    child.kill('SIGTERM')
    http.closeAllConnections()
    http.close()
  }
})
