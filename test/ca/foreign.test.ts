/** Clients that share no code with us: curl and openssl against a real TLS server. Absent: skipped by name. */
import { execFile, spawnSync } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bodyTooLarge, EST_BODY_LIMIT, instant, issueServer, type EstResponse } from '#ca'
import { channelBinding } from '#est'
import { spkiOf } from './requests.ts'
import { Bench, newHouse, newKey, pem, random, TENANT } from './support.ts'

const has = (program: string, argument: string): boolean =>
  spawnSync(program, [argument]).status === 0
const missing = !has('curl', '--version') || !has('openssl', 'version')

/** The chain a client presented, DER, leaf first. */
function presented(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let next = socket.getPeerCertificate(true)
  while (next?.raw !== undefined && chain.length < 5) {
    chain.push(next.raw)
    if (next.issuerCertificate === next) break
    next = next.issuerCertificate
  }
  return chain
}

interface Site extends AsyncDisposable {
  readonly bench: Bench
  readonly url: string
  readonly port: number
  readonly folder: string
}

async function open(): Promise<Site> {
  const bench = await Bench.open(':memory:', await newHouse(Date.now()))
  bench.now = Date.now()
  const key = newKey()
  const names = { dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] }
  const request = {
    tenant: TENANT,
    gateway: 'gw-1',
    publicKey: spkiOf(key),
    issuers: bench.house.issuers,
  }
  const timing = { now: instant(bench.now), random }
  const desk = { store: bench.store, log: async () => undefined }
  const { chain } = await issueServer({ ...request, ...names, ...timing }, desk)
  const serve = bench.server()
  const cert = chain.map((each) => pem(each)).join('')
  const tls = {
    key: key.export({ type: 'sec1', format: 'pem' }),
    cert,
    requestCert: true,
    rejectUnauthorized: false,
  }
  const server = createServer(tls, (incoming, outgoing) => {
    const socket = incoming.socket as TLSSocket
    const parts: Buffer[] = []
    let size = 0
    const send = (answer: EstResponse) => {
      const close = answer.close ? { connection: 'close' } : {}
      outgoing.writeHead(answer.status, { ...answer.headers, ...close }).end(answer.body)
    }
    incoming.on('data', (part: Buffer) => {
      size += part.length
      if (size <= EST_BODY_LIMIT) parts.push(part)
      else if (!outgoing.headersSent) send(bodyTooLarge('req-big'))
    })
    incoming.on('end', () => {
      if (outgoing.headersSent) return
      const headers = Object.fromEntries(
        Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]),
      )
      const connection = {
        tlsVersion: socket.getProtocol() ?? '',
        channelBinding: channelBinding(socket, 'server'),
        clientChain: presented(socket),
        remoteAddress: socket.remoteAddress ?? '',
        requestId: 'req-1',
      }
      const { method = '', url: path = '' } = incoming
      void serve({ method, path, headers, body: Buffer.concat(parts), connection }).then(send)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-est-'))
  return {
    bench,
    port,
    folder,
    url: `https://localhost:${port}/.well-known/est`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await bench[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true })
    },
  }
}

describe.skipIf(missing)('curl and openssl', () => {
  let site: Site
  beforeAll(async () => {
    site = await open()
  })
  afterAll(() => site[Symbol.asyncDispose]())

  const at = (name: string) => join(site.folder, name)
  const run = (program: string, ...args: string[]): Promise<string> =>
    new Promise((resolve, reject) => {
      execFile(program, args, { cwd: site.folder, encoding: 'utf8' }, (error, stdout, stderr) =>
        error === null
          ? resolve(stdout)
          : reject(new Error(`${program}: ${stderr}`, { cause: error })),
      )
    })
  /** Status, headers and body of one request. */
  async function curl(...args: string[]) {
    const text = await run(
      'curl',
      '-sS',
      '-i',
      '--resolve',
      `localhost:${site.port}:127.0.0.1`,
      '--cacert',
      'root.pem',
      '-H',
      'Expect:',
      ...args,
    )
    const [head = '', body = ''] = text.split('\r\n\r\n', 2)
    const status = Number(head.split(' ')[1])
    return { status, head, body }
  }
  const csrType = ['-H', 'Content-Type: application/pkcs10']
  async function newCsr(name: string, ...args: string[]): Promise<void> {
    await run(
      'openssl',
      'ecparam',
      '-name',
      'prime256v1',
      '-genkey',
      '-noout',
      '-out',
      `${name}.key`,
    )
    await run(
      'openssl',
      'req',
      '-new',
      '-key',
      `${name}.key`,
      '-outform',
      'DER',
      '-out',
      `${name}.csr`,
      ...args,
    )
    await run('openssl', 'base64', '-in', `${name}.csr`, '-out', `${name}.b64`)
  }
  /** Writes the one certificate of a certs-only body to `name`, as openssl reads it. */
  async function unpack(body: string, name: string): Promise<void> {
    writeFileSync(at('p7.b64'), body)
    await run('openssl', 'base64', '-d', '-in', 'p7.b64', '-out', 'p7.der')
    await run('openssl', 'pkcs7', '-inform', 'DER', '-in', 'p7.der', '-print_certs', '-out', name)
  }
  const uri = `URI:sallyport://${TENANT}/device/press-07`

  test('the root comes by cacerts and is the pinned one', async () => {
    writeFileSync(at('root.pem'), '')
    const text = await run(
      'curl',
      '-sS',
      '-k',
      `https://127.0.0.1:${site.port}/.well-known/est/cacerts`,
    )
    await unpack(text, 'cas.pem')
    const all =
      readFileSync(at('cas.pem'), 'utf8').match(/-----BEGIN[^]+?-----END CERTIFICATE-----\n/g) ?? []
    expect(all).toHaveLength(2)
    writeFileSync(at('root.pem'), all[0]!)
    writeFileSync(at('issuing.pem'), all[1]!)
    const print = await run(
      'openssl',
      'x509',
      '-in',
      'root.pem',
      '-noout',
      '-fingerprint',
      '-sha256',
    )
    const pin = createHash('sha256').update(site.bench.house.authority.root).digest('hex')
    expect(print.trim().split('=')[1]?.replaceAll(':', '').toLowerCase()).toBe(pin)
    expect((await curl(`${site.url}/cacerts`)).status).toBe(200)
  })

  for (const version of ['1.2', '1.3'])
    test(`TLS ${version}: a token enrols, the certificate renews, openssl verifies both`, async () => {
      const tls = ['--tlsv1.2', '--tls-max', version]
      const name = `device-${version}`
      await newCsr(name, '-subj', '/CN=press-07', '-addext', `subjectAltName=${uri}`)
      const token = await site.bench.token()
      const sent = [...csrType, '--data-binary', `@${name}.b64`]
      const enrolled = await curl(...tls, '-u', `:${token}`, ...sent, `${site.url}/simpleenroll`)
      expect(enrolled.status).toBe(200)
      expect(enrolled.head).toMatch(/content-type: application\/pkcs7-mime; smime-type=certs-only/i)
      await unpack(enrolled.body, `${name}.pem`)
      const verify = [
        'verify',
        '-x509_strict',
        '-purpose',
        'sslclient',
        '-CAfile',
        'root.pem',
        '-untrusted',
        'issuing.pem',
      ]
      expect(await run('openssl', ...verify, `${name}.pem`)).toBe(`${name}.pem: OK\n`)
      await newCsr(`${name}-next`, '-subj', '/CN=press-07', '-addext', `subjectAltName=${uri}`)
      const client = ['--cert', `${name}.pem`, '--key', `${name}.key`]
      const next = [...csrType, '--data-binary', `@${name}-next.b64`]
      const renewed = await curl(...tls, ...client, ...next, `${site.url}/device/simplereenroll`)
      expect(renewed.status).toBe(200)
      await unpack(renewed.body, `${name}-next.pem`)
      expect(await run('openssl', ...verify, `${name}-next.pem`)).toContain(': OK')
      const certificate = new X509Certificate(readFileSync(at(`${name}-next.pem`)))
      expect(certificate.subjectAltName).toBe(uri)
      expect(site.bench.asked.at(-1)).toMatchObject({
        point: 'device.renew',
        facts: { tls_version: `TLSv${version}` },
      })
    })

  test('chunked, and repeated: the same bytes', async () => {
    await newCsr('again', '-subj', '/CN=press-07')
    const token = await site.bench.token()
    const sent = [
      ...csrType,
      '-H',
      'Transfer-Encoding: chunked',
      '-u',
      `:${token}`,
      '--data-binary',
      '@again.b64',
    ]
    const [first, second] = [
      await curl(...sent, `${site.url}/simpleenroll`),
      await curl(...sent, `${site.url}/simpleenroll`),
    ]
    expect(first.status).toBe(200)
    expect(second.body).toBe(first.body)
  })

  test('--anyauth: curl asks without, is challenged, and comes back with the token', async () => {
    await newCsr('polite', '-subj', '/CN=press-07')
    const token = await site.bench.token()
    const text = await run(
      'curl',
      '-sS',
      '--anyauth',
      '-u',
      `:${token}`,
      '--resolve',
      `localhost:${site.port}:127.0.0.1`,
      '--cacert',
      'root.pem',
      ...csrType,
      '--data-binary',
      '@polite.b64',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      `${site.url}/simpleenroll`,
    )
    expect(text).toBe('200')
  })

  test('what is refused reaches the person at the terminal', async () => {
    await newCsr('wrong', '-subj', '/CN=press-07')
    writeFileSync(at('big'), 'A'.repeat(EST_BODY_LIMIT + 1))
    const body = [...csrType, '--data-binary', '@wrong.b64']
    const enroll = `${site.url}/simpleenroll`
    const rows = [
      [['-u', ':spt_wrong', ...body, enroll], 401, 'credential'],
      [[...body, enroll], 401, 'credential'],
      [[...body, `${site.url}/simplereenroll`], 403, 'certificate.required'],
      [[enroll], 405, 'method'],
      [['--data-binary', '@wrong.b64', enroll], 415, 'media_type'],
      [[...csrType, '--data-binary', '@big', enroll], 413, 'body.length'],
      [[...csrType, '--data-binary', 'garbage', enroll], 400, 'body.base64'],
      [[...csrType, '--data-binary', 'Z2FyYmFnZQ==', enroll], 400, 'der'],
      [[...csrType, '--data-binary', '', `${site.url}/fullcmc`], 501, 'operation.unsupported'],
      [[...body, `${site.url}/serverkeygen`], 404, 'operation.off'],
      [[...body, `${site.url}/toaster/simpleenroll`], 404, 'label.unknown'],
    ] as const
    for (const [args, status, code] of rows) {
      const answer = await curl(...args)
      expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
    }
  })

  test('a stranger with a certificate of his own making', async () => {
    await newCsr('stranger', '-subj', '/CN=press-07')
    await run(
      'openssl',
      'req',
      '-x509',
      '-key',
      'stranger.key',
      '-subj',
      '/CN=press-07',
      '-days',
      '1',
      '-addext',
      `subjectAltName=${uri}`,
      '-out',
      'stranger.pem',
    )
    const client = ['--cert', 'stranger.pem', '--key', 'stranger.key']
    const answer = await curl(
      ...client,
      ...csrType,
      '--data-binary',
      '@stranger.b64',
      `${site.url}/simplereenroll`,
    )
    expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'peer.issuer'])
  })

  test('csrattrs is read by openssl', async () => {
    const { body } = await curl(`${site.url}/csrattrs`)
    writeFileSync(at('attrs.b64'), body)
    await run('openssl', 'base64', '-d', '-in', 'attrs.b64', '-out', 'attrs.der')
    const text = await run('openssl', 'asn1parse', '-inform', 'DER', '-in', 'attrs.der')
    expect(text).toMatch(/id-ecPublicKey[^]+prime256v1[^]+ecdsa-with-SHA256/)
  })
})
