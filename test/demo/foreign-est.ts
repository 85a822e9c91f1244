/**
 * Enrolment without a line of ours: what a stranger with curl and openssl does to get a device
 * certificate from /.well-known/est (RFC 7030 sections 4.1 and 4.2). Secrets go by file, never argv.
 */
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, StepFailed } from './failure.ts'

export interface ForeignOptions {
  readonly directory: string
  /** `https://localhost:8443`. */
  readonly origin: string
  /** SHA-256 of the root, 64 hex digits. */
  readonly rootSha256: string
  readonly tenant: string
  readonly device: string
  readonly token: string
}

export interface ForeignIdentity {
  /** PEM, PKCS#8. */
  readonly key: string
  /** PEM of the device certificate alone. */
  readonly certificate: string
  /** PEM of all that /cacerts gave. */
  readonly authorities: string
  /** PEM of the pinned root. */
  readonly root: string
}

/** The programs this needs that are not here; empty where all are. */
export async function missingPrograms(): Promise<string[]> {
  const found = await Promise.all(
    (['curl', 'openssl'] as const).map(async (name) => {
      const version = name === 'curl' ? '--version' : 'version'
      return (await run(name, [version]).catch(() => undefined)) === undefined ? name : undefined
    }),
  )
  return found.filter((name) => name !== undefined)
}

/** Throws StepFailed with what curl or openssl said. */
export async function enrolByCurl(options: ForeignOptions): Promise<ForeignIdentity> {
  const file = (name: string): string => join(options.directory, name)
  await fetchAuthorities(options)
  await run('openssl', [
    'genpkey',
    '-algorithm',
    'EC',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-out',
    file('key.pem'),
  ])
  writeFileSync(file('csr.conf'), csrConfig(options))
  const der = ['-config', file('csr.conf'), '-outform', 'DER', '-out', file('csr.der')]
  await run('openssl', ['req', '-new', '-key', file('key.pem'), ...der])
  await run('openssl', ['base64', '-in', file('csr.der'), '-out', file('csr.b64')])
  const status = await enrol(options)
  expect(
    status === '200',
    'HTTP 200 from /simpleenroll',
    `${status}: ${readFileSync(file('answer'), 'utf8')}`,
  )
  await certificatesOf(file('answer'), file('certificate.pem'))
  await verify(options)
  return {
    key: file('key.pem'),
    certificate: file('certificate.pem'),
    authorities: file('authorities.pem'),
    root: file('root.pem'),
  }
}

/** Asks again with the same one-time token for another key; gives the HTTP status. */
export async function enrolAgain(options: ForeignOptions): Promise<string> {
  const file = (name: string): string => join(options.directory, name)
  await run('openssl', [
    'genpkey',
    '-algorithm',
    'EC',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-out',
    file('other.pem'),
  ])
  const der = ['-config', file('csr.conf'), '-outform', 'DER', '-out', file('csr.der')]
  await run('openssl', ['req', '-new', '-key', file('other.pem'), ...der])
  await run('openssl', ['base64', '-in', file('csr.der'), '-out', file('csr.b64')])
  return enrol(options)
}

/** /cacerts before anything is trusted: only a certificate with the pinned digest becomes the root. */
async function fetchAuthorities(options: ForeignOptions): Promise<void> {
  const file = (name: string): string => join(options.directory, name)
  const url = `${options.origin}/.well-known/est/cacerts`
  await run('curl', [
    '--silent',
    '--show-error',
    '--fail',
    '--insecure',
    '--output',
    file('cacerts'),
    url,
  ])
  await certificatesOf(file('cacerts'), file('authorities.pem'))
  const each = readFileSync(file('authorities.pem'), 'utf8').match(
    /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g,
  )
  for (const pem of each ?? []) {
    writeFileSync(file('candidate.pem'), `${pem}\n`)
    const print = await run('openssl', [
      'x509',
      '-in',
      file('candidate.pem'),
      '-noout',
      '-fingerprint',
      '-sha256',
    ])
    const digest = print.split('=')[1]?.trim().replaceAll(':', '').toLowerCase()
    if (digest !== options.rootSha256) continue
    writeFileSync(file('root.pem'), `${pem}\n`)
    return
  }
  throw new StepFailed(
    `a root with SHA-256 ${options.rootSha256} in /cacerts`,
    `${each?.length ?? 0} others`,
  )
}

/** Base64 certs-only PKCS#7 (RFC 7030 section 4.1.3) to PEM. */
async function certificatesOf(from: string, to: string): Promise<void> {
  await run('openssl', ['base64', '-d', '-in', from, '-out', `${from}.p7`])
  await run('openssl', ['pkcs7', '-inform', 'DER', '-in', `${from}.p7`, '-print_certs', '-out', to])
}

function csrConfig({ tenant, device }: ForeignOptions): string {
  return `[req]
prompt = no
distinguished_name = name
req_extensions = extensions
[name]
CN = ${device}
[extensions]
subjectAltName = URI:sallyport://${tenant}/device/${device}
`
}

async function enrol({ directory, origin, device, token }: ForeignOptions): Promise<string> {
  const file = (name: string): string => join(directory, name)
  // curl reads user and password from this file; other users of the machine read command lines.
  writeFileSync(file('curl.conf'), `user = "${device}:${token}"\n`, { mode: 0o600 })
  const trust = ['--config', file('curl.conf'), '--cacert', file('root.pem')]
  const request = [
    '--header',
    'Content-Type: application/pkcs10',
    '--data-binary',
    `@${file('csr.b64')}`,
  ]
  const answer = ['--output', file('answer'), '--write-out', '%{http_code}']
  const url = `${origin}/.well-known/est/simpleenroll`
  const status = await run('curl', [
    '--silent',
    '--show-error',
    ...trust,
    ...request,
    ...answer,
    url,
  ])
  return status.trim()
}

/** What openssl thinks of the certificate: strict path, for TLS clients, and the key is ours. */
async function verify({ directory }: ForeignOptions): Promise<void> {
  const file = (name: string): string => join(directory, name)
  const chain = ['-CAfile', file('root.pem'), '-untrusted', file('authorities.pem')]
  await run('openssl', [
    'verify',
    '-x509_strict',
    '-purpose',
    'sslclient',
    ...chain,
    file('certificate.pem'),
  ])
  const ours = await run('openssl', ['pkey', '-in', file('key.pem'), '-pubout'])
  const theirs = await run('openssl', ['x509', '-in', file('certificate.pem'), '-noout', '-pubkey'])
  expect(ours === theirs, 'the certificate to be for the key that was made here', 'another key')
}

async function run(command: string, args: readonly string[]): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  execFile(command, args, { timeout: 30_000, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
    if (error === null) resolve(stdout)
    else
      reject(
        new StepFailed(`${command} ${args[0] ?? ''} to succeed`, stderr.trim() || error.message),
      )
  })
  return promise
}
