/** The policy in force, handed out: to whoever has it already, whoever waits, and a stock OPA. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, expect, test } from 'vitest'
import { BUILTIN_BUNDLE, builtinDigest } from '#policy'
import { BundleServer } from '../../../gateway/policy/publish.ts'
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
