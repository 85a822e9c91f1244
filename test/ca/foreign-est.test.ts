/** EST clients by other people, and ours as a command, against the gateway's port. Absent: skipped by name. */
import { execFile, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { instant, openAnchors } from '#ca'
import { main } from '../../cli/main.ts'
import { named, newMaker, make, type Maker } from './maker.ts'
import { openSite, type Site } from './site.ts'
import { HOUR, pem, TENANT } from './support.ts'

const says = (program: string, ...args: string[]): string => {
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  return `${stdout ?? ''}${stderr ?? ''}`
}
const openssl = says('openssl', 'version') !== ''
const noSwan =
  !openssl ||
  !says('pki', '--help').includes('--est ') ||
  !/loaded plugins:.*\bcurl\b/.test(says('pki', '--help'))
const noGo = !openssl || !says('estclient', 'help').includes('enroll')

let site: Site
let maker: Maker
beforeAll(async () => {
  maker = newMaker()
  const anchors = openAnchors([maker.root.certificate])
  site = await openSite({
    asking: [pem(maker.root.certificate), pem(maker.middle.certificate)],
    est: (bench) => ({
      pending: bench.pending,
      labels: [
        { name: 'device', profile: 'device' },
        { name: 'linked', profile: 'device', linking: 'required' },
      ],
      manufacturers: () => [
        {
          name: 'acme',
          anchors,
          claim: async (serial) => (serial === 'SN-1' ? 'press-42' : undefined),
        },
      ],
    }),
  })
  site.bench.devices.set('press-42', { id: 'press-42', zone: 'hall-a', state: 'pending' })
  writeFileSync(at('root.pem'), site.root)
})
afterAll(() => site[Symbol.asyncDispose]())

const at = (name: string): string => join(site.folder, name)
interface Ran {
  readonly code: number
  readonly out: Buffer
  readonly err: string
}
function run(program: string, args: readonly string[], timeout = 0): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(
      program,
      [...args],
      { cwd: site.folder, encoding: 'buffer', timeout },
      (error, out, err) => resolve({ code: error === null ? 0 : 1, out, err: err.toString() }),
    )
  })
}
/** Like `run`, but a failure is the test's. */
async function must(program: string, ...args: string[]): Promise<Buffer> {
  const { code, out, err } = await run(program, args)
  if (code !== 0) throw new Error(`${program} ${args[0]}: ${err}`)
  return out
}
const uri = `URI:sallyport://${TENANT}/device/press-07`
async function newCsr(name: string, form: 'DER' | 'PEM'): Promise<void> {
  await must(
    'openssl',
    'genpkey',
    '-algorithm',
    'EC',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-out',
    `${name}.key`,
  )
  const names = ['-subj', '/CN=press-07', '-addext', `subjectAltName=${uri}`]
  await must(
    'openssl',
    'req',
    '-new',
    '-key',
    `${name}.key`,
    ...names,
    '-outform',
    form,
    '-out',
    `${name}.csr`,
  )
}

describe.skipIf(noSwan)('strongSwan pki', () => {
  // Version 5.9.8 puts a path before `/.well-known`, so it reaches no label: the one without a name is
  // made for it (`wrap: none`).
  let swan: Site
  beforeAll(async () => {
    const labels = [{ name: 'device', profile: 'device', wrap: 'none' }] as const
    swan = await openSite({ est: (bench) => ({ pending: bench.pending, labels }) })
    writeFileSync(at('swan-root.der'), swan.bench.house.authority.root)
  })
  afterAll(() => swan[Symbol.asyncDispose]())
  const est = (...args: string[]) =>
    run('pki', ['--est', '--cacert', 'swan-root.der', '--url', swan.url, ...args])

  test('--estca fetches the CA certificates', async () => {
    await must(
      'pki',
      '--estca',
      '--url',
      swan.url,
      '--cacert',
      'swan-root.der',
      '--caout',
      'swan-ca.der',
      '--force',
    )
    const first = new X509Certificate(readFileSync(at('swan-ca.der')))
    expect(first.raw.equals(Buffer.from(swan.bench.house.authority.root))).toBe(true)
  })

  test('--est: a token, a wrong token, a renewal by certificate, a request that waits', async () => {
    await newCsr('swan', 'DER')
    const token = await swan.bench.token()
    const enrolled = await est('--in', 'swan.csr', '--userpass', `press-07:${token}`)
    expect(enrolled.code, enrolled.err).toBe(0)
    const leaf = new X509Certificate(enrolled.out)
    expect(leaf.subjectAltName).toBe(uri)
    writeFileSync(at('swan.crt'), enrolled.out)
    const wrong = await est('--in', 'swan.csr', '--userpass', 'press-07:spt_wrong')
    expect(wrong.code).not.toBe(0)
    await newCsr('swan-next', 'DER')
    const client = ['--cert', 'swan.crt', '--key', 'swan.key']
    const renewed = await est('--in', 'swan-next.csr', ...client)
    expect(renewed.code, renewed.err).toBe(0)
    expect(new X509Certificate(renewed.out).serialNumber).not.toBe(leaf.serialNumber)
    const { decision } = swan.bench
    const denial = { code: 'renew.too_late', msg: 'later', remedy: 'approve' }
    swan.bench.decision = { allow: false, denials: [denial], decision_id: 'd', obligations: {} }
    await newCsr('swan-wait', 'DER')
    const later = await swan.bench.token()
    const user = ['--userpass', `press-07:${later}`]
    // It waits as long as Retry-After says, which is longer than a test.
    const ask = [
      '--est',
      '--cacert',
      'swan-root.der',
      '--url',
      swan.url,
      '--in',
      'swan-wait.csr',
      ...user,
    ]
    const waits = await run('pki', ask, 3_000)
    swan.bench.decision = decision
    expect(waits.err).toMatch(/pending|retry|waiting/i)
    expect(await swan.bench.pending.list(TENANT, instant(swan.bench.now))).toHaveLength(1)
  })
})

describe.skipIf(noGo)('globalsign estclient', () => {
  const est = (command: string, ...args: string[]) =>
    run('estclient', [
      command,
      '-server',
      `localhost:${site.port}`,
      '-explicit',
      'root.pem',
      ...args,
    ])

  test('cacerts and csrattrs, with and without label', async () => {
    for (const label of [[], ['-aps', 'linked']]) {
      const cas = await est('cacerts', ...label)
      expect(cas.code, cas.err).toBe(0)
      expect(cas.out.toString().match(/BEGIN CERTIFICATE/g)).toHaveLength(2)
      const attributes = await est('csrattrs', ...label)
      expect(attributes.code, attributes.err).toBe(0)
    }
  })

  test('enroll by token, reenroll by certificate, a refusal with our text', async () => {
    await newCsr('go', 'PEM')
    const token = await site.bench.token()
    const user = ['-user', 'press-07', '-pass', token]
    const enrolled = await est('enroll', '-csr', 'go.csr', '-out', 'go.crt', ...user)
    expect(enrolled.code, enrolled.err).toBe(0)
    expect(new X509Certificate(readFileSync(at('go.crt'))).subjectAltName).toBe(uri)
    await newCsr('go-next', 'PEM')
    const client = ['-certs', 'go.crt', '-key', 'go.key']
    const renewed = await est('reenroll', '-csr', 'go-next.csr', '-out', 'go-next.crt', ...client)
    expect(renewed.code, renewed.err).toBe(0)
    const wrong = await est(
      'enroll',
      '-csr',
      'go-next.csr',
      '-user',
      'press-07',
      '-pass',
      'spt_wrong',
    )
    expect([wrong.code, wrong.err]).toEqual([1, expect.stringContaining('credential: the token')])
  })

  test('serverkeygen is not there', async () => {
    const answer = await est('serverkeygen', '-csr', 'go.csr', '-user', 'press-07', '-pass', 'x')
    expect(answer.code).toBe(1)
  })
})

describe('sallyport est', () => {
  const sallyport = (...args: string[]) => main(['node', 'sallyport', '--json', 'est', ...args])
  const to = () => ['--server', site.url, '--ca', at('root.pem')]

  test('cacerts by pin and by file, csrattrs, enroll with linking, reenroll with another key', async () => {
    expect(await sallyport('cacerts', '--server', site.url)).toBe(0)
    expect(await sallyport('cacerts', '--server', site.url, '--out', at('x'))).toBe(2)
    expect(
      await sallyport(
        'cacerts',
        '--server',
        site.url,
        '--ca-sha256',
        site.pin,
        '--out',
        at('cas.pem'),
      ),
    ).toBe(0)
    expect(readFileSync(at('cas.pem'), 'utf8').match(/BEGIN/g)).toHaveLength(2)
    expect(await sallyport('cacerts', '--server', site.url, '--ca-sha256', 'ab'.repeat(32))).toBe(5)
    expect(await sallyport('csrattrs', ...to(), '--label', 'linked')).toBe(0)
    writeFileSync(at('token'), await site.bench.token())
    const out = ['--key', at('own.key'), '--out', at('own.crt')]
    const enroll = ['--label', 'linked', '--cn', 'press-07', '--password-file', at('token'), ...out]
    expect(await sallyport('enroll', ...to(), ...enroll)).toBe(0)
    const first = new X509Certificate(readFileSync(at('own.crt')))
    expect(first.subjectAltName).toBe(uri)
    const renewal = [
      '--cert',
      at('own.crt'),
      '--key',
      at('own.key'),
      '--new-key',
      at('own2.key'),
      '--out',
      at('own2.crt'),
    ]
    expect(await sallyport('reenroll', ...to(), ...renewal)).toBe(0)
    expect(new X509Certificate(readFileSync(at('own2.crt'))).serialNumber).not.toBe(
      first.serialNumber,
    )
    writeFileSync(at('token'), 'spt_wrong')
    expect(await sallyport('enroll', ...to(), ...enroll)).toBe(3)
    expect(await sallyport('enroll', '--server', site.url, ...enroll)).toBe(2)
  })

  test("2.9 a maker's chain, presented in a real handshake", async () => {
    const now = Date.now()
    const device = make({ names: named('PLC', 'SN-1'), by: maker.middle, notBefore: now - HOUR })
    const other = make({ names: named('PLC', 'SN-2'), by: maker.middle, notBefore: now - HOUR })
    for (const [party, code] of [
      [other, 3],
      [device, 0],
    ] as const) {
      writeFileSync(at('idevid.pem'), pem(party.certificate) + pem(maker.middle.certificate))
      writeFileSync(at('idevid.key'), party.key.export({ type: 'pkcs8', format: 'pem' }), {
        mode: 0o600,
      })
      const client = ['--cert', at('idevid.pem'), '--cert-key', at('idevid.key')]
      const ours = ['--key', at('ldevid.key'), '--out', at('ldevid.crt'), '--cn', 'press-42']
      expect(await sallyport('enroll', ...to(), ...client, ...ours)).toBe(code)
    }
    expect(new X509Certificate(readFileSync(at('ldevid.crt'))).subjectAltName).toContain('press-42')
  })
})
