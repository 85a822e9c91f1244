/** Whoever asks for lists or by OCSP is told of a revocation at once, in words that openssl believes. */
import { request as httpsRequest } from 'node:https'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RevocationList } from '#api'
import { openssl, type Openssl } from '../../ca/openssl.ts'
import {
  presenting,
  startNode,
  toNode,
  until,
  type DeviceIdentity,
  type TestNode,
} from '../../support/node.ts'
import { serialOf } from './dialling.ts'

let node: TestNode
let ssl: Openssl
beforeAll(async () => {
  node = await startNode()
  ssl = openssl()
})
afterAll(async () => {
  ssl[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

interface Fetched {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** A plain request: no sign-in, no client certificate. */
async function get(
  path: string,
  {
    method = 'GET',
    headers = {},
    body,
  }: { method?: string; headers?: Record<string, string>; body?: Uint8Array } = {},
): Promise<Fetched> {
  const { promise, resolve, reject } = Promise.withResolvers<Fetched>()
  const host = `localhost:${node.port}`
  const request = httpsRequest(
    { ...toNode(node), agent: false, method, path, headers: { host, ...headers } },
    (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      )
    },
  )
  request.on('error', reject)
  request.end(body)
  return await promise
}

describe('the list', () => {
  const lists = async () =>
    (await node.admin.ask<{ items: RevocationList[] }>('GET', '/ca/crls')).items
  const path = async () => new URL((await lists())[0]?.url ?? '').pathname

  test('tells of a revocation at once, to everybody, and openssl believes it', async () => {
    const device = await node.device('crl-01')
    const at = await path()
    const before = (await lists())[0]?.number ?? 0
    await node.admin.ask('POST', '/devices/crl-01/revoke', { reason: 'keyCompromise' })
    const { headers, body } = await until('the list names it', async () => {
      const fetched = await get(at)
      return fetched.body.toString('hex').includes(serialOf(device)) ? fetched : undefined
    })
    expect(headers['content-type']).toBe('application/pkix-crl')
    const file = ssl.file('got.crl', body)
    const ca = ssl.file('ca.pem', readIssuing())
    const { text } = ssl.run('crl', '-inform', 'DER', '-in', file, '-CAfile', ca, '-noout', '-text')
    expect(text).toContain('verify OK')
    expect(text).toContain('Key Compromise')
    const [now] = await lists()
    expect(now?.number).toBeGreaterThan(before)
    expect(now?.pem).toContain('BEGIN X509 CRL')
    expect((now?.next_update ?? 0) - (now?.this_update ?? 0)).toBe(86_400)
  })

  test('is kept by caches for a minute, and asked for again by its tag', async () => {
    const at = await path()
    const { status, headers, body } = await get(at)
    expect([status, headers['cache-control']]).toEqual([
      200,
      'public, max-age=60, no-transform, must-revalidate',
    ])
    expect(headers['expires']).toMatch(/GMT$/)
    const again = await get(at, { headers: { 'if-none-match': String(headers['etag']) } })
    expect([again.status, again.body.length]).toEqual([304, 0])
    const head = await get(at, { method: 'HEAD' })
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([
      200,
      String(body.length),
      0,
    ])
  })

  test.for([
    ['GET', `/crl/${'00'.repeat(20)}.crl`, 404],
    ['GET', '/crl/../store.sqlite', 404],
    ['GET', '/crl/', 404],
    ['POST', `/crl/${'00'.repeat(20)}.crl`, 405],
    ['GET', '/ocsp', 405],
    ['PUT', '/ocsp', 405],
    ['POST', '/ocsp/AAAA', 405],
    ['POST', '/ocsp', 415],
  ] as const)('%s %s: %i', async ([method, at, status]) => {
    expect((await get(at, { method })).status).toBe(status)
  })

  test('under an app’s name there is none', async () => {
    const { status } = await get(await path(), {
      headers: { host: `plc--press.apps.localhost:${node.port}` },
    })
    expect(status).not.toBe(200)
  })
})

function readIssuing(): string {
  return readFileSync(join(node.data, 'ca', 'issuing.crt'), 'utf8')
}

describe('OCSP on the port', () => {
  function request(device: DeviceIdentity, ...options: string[]): Uint8Array {
    const out = join(ssl.folder, 'request.der')
    ssl.run(
      'ocsp',
      ...options,
      '-issuer',
      ssl.file('issuing.pem', readIssuing()),
      '-cert',
      ssl.file('leaf.pem', presenting(device).cert),
      '-reqout',
      out,
    )
    return readFileSync(out)
  }
  function verdict(answer: Uint8Array): string {
    return ssl.run(
      'ocsp',
      '-respin',
      ssl.file('answer.der', answer),
      '-issuer',
      ssl.file('issuing.pem', readIssuing()),
      '-cert',
      join(ssl.folder, 'leaf.pem'),
      '-CAfile',
      ssl.file('root.pem', node.anchor),
      '-verify_other',
      join(ssl.folder, 'issuing.pem'),
    ).text
  }
  const type = { 'content-type': 'application/ocsp-request' }

  test('POST and GET say the same, before and at once after a revocation', async () => {
    const device = await node.device('ocsp-01')
    const asked = request(device, '-no_nonce')
    const inPath = `/ocsp/${encodeURIComponent(Buffer.from(asked).toString('base64'))}`
    for (const [said, prepare] of [
      ['good', async () => {}],
      [
        'revoked',
        () => node.admin.ask('POST', '/devices/ocsp-01/revoke', { reason: 'keyCompromise' }),
      ],
    ] as const) {
      await prepare()
      const posted = await get('/ocsp', { method: 'POST', headers: type, body: asked })
      const got = await get(inPath)
      for (const { status, headers, body } of [posted, got]) {
        expect([status, headers['content-type']]).toEqual([200, 'application/ocsp-response'])
        expect(verdict(body)).toContain('Response verify OK')
        expect(verdict(body)).toContain(`leaf.pem: ${said}`)
      }
      expect(posted.headers['cache-control']).toBe('no-store')
      expect(got.headers['cache-control']).toContain('max-age=60')
      expect(got.body.equals(posted.body)).toBe(true)
    }
  })

  test('with a nonce nothing is kept', async () => {
    const device = await node.device('ocsp-02')
    const body = request(device, '-nonce')
    const [first, second] = [
      await get('/ocsp', { method: 'POST', headers: type, body }),
      await get('/ocsp', { method: 'POST', headers: type, body }),
    ]
    expect(first.body.equals(second.body)).toBe(false)
    expect(first.headers['cache-control']).toBe('no-store')
  })

  test('what cannot be read is malformedRequest, what is too long 413', async () => {
    for (const [options, at] of [
      [{ method: 'POST', headers: type, body: Uint8Array.of(1) }, '/ocsp'],
      [{}, '/ocsp/%25%25'],
      [{}, '/ocsp/%'],
      [{}, '/ocsp/not*base64'],
    ] as const)
      expect((await get(at, options)).body.toString('hex')).toBe('30030a0101')
    const long = new Uint8Array(5_000)
    const { status, headers } = await get('/ocsp', { method: 'POST', headers: type, body: long })
    expect([status, headers['connection']]).toEqual([413, 'close'])
  })

  test('a responder that is revoked does not answer on', async () => {
    const device = await node.device('ocsp-03')
    const body = request(device, '-no_nonce')
    await get('/ocsp', { method: 'POST', headers: type, body })
    const responders = () =>
      node.rows(`SELECT serial FROM ca_certificate WHERE profile = 'ocsp' ORDER BY rowid`)
    const [{ serial } = {}] = responders()
    await node.admin.ask('POST', `/certificates/${String(serial)}/revoke`, {
      reason: 'keyCompromise',
    })
    // Ten who ask at once get one new responder between them.
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => get('/ocsp', { method: 'POST', headers: type, body })),
    )
    for (const answer of answers) expect(verdict(answer.body)).toContain('Response verify OK')
    expect(responders()).toHaveLength(2)
  })
})
