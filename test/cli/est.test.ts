/** `sallyport est` as a person reads it: results, refusals with the server's own words, exit codes. */
import { X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DECIDED_MS, instant } from '#ca'
import { openSite, type Site } from '../ca/site.ts'
import { TENANT } from '../ca/support.ts'
import { run, type Ran } from './run.ts'

let site: Site
beforeAll(async () => {
  site = await openSite({ est: (bench) => ({ pending: bench.pending }) })
  writeFileSync(at('root.pem'), site.root)
})
afterAll(() => site[Symbol.asyncDispose]())

const at = (name: string) => join(site.folder, name)
const est = async (verb: string, ...args: string[]): Promise<Ran> =>
  await run(site.folder, 'est', verb, '--server', site.url, ...args)
const trusted = () => ['--ca', at('root.pem')]
function complaint({ code, err }: Ran) {
  const line = (name: string) => new RegExp(`^  ${name}  +(.*)$`, 'm').exec(err)?.[1]
  return { exit: code, code: line('code'), why: line('why'), next: line('next') }
}
async function enroll(name: string, ...more: string[]): Promise<Ran> {
  writeFileSync(at('token'), await site.bench.token())
  const files = ['--key', at(`${name}.key`), '--out', at(`${name}.crt`)]
  return await est('enroll', ...trusted(), '--password-file', at('token'), ...files, ...more)
}
const leafIn = (name: string) => new X509Certificate(readFileSync(at(`${name}.crt`)))

describe('cacerts', () => {
  test('of a server that nothing vouches for: fingerprints, and that nothing was verified', async () => {
    const ran = await est('cacerts')
    expect(ran.code).toBe(0)
    expect(ran.out).toContain(`${site.pin}  O=${TENANT}, CN=Sallyport root`)
    expect(ran.err).toContain('nothing was verified')
    expect(complaint(await est('cacerts', '--out', at('x.pem')))).toMatchObject({
      exit: 2,
      next: 'give --ca or --ca-sha256',
    })
    expect(existsSync(at('x.pem'))).toBe(false)
  })
  test('by its pin, into a file; another pin is another server', async () => {
    const ran = await est('cacerts', '--ca-sha256', site.pin, '--out', at('cas.pem'))
    expect([ran.code, ran.err]).toEqual([0, ''])
    expect(readFileSync(at('cas.pem'), 'utf8').match(/BEGIN/g)).toHaveLength(2)
    const wrong = await est('cacerts', '--ca-sha256', 'ab'.repeat(32), '--out', at('cas2.pem'))
    expect(complaint(wrong)).toMatchObject({ exit: 5, code: 'gateway.untrusted' })
    expect(existsSync(at('cas2.pem'))).toBe(false)
  })
})

test('csrattrs: what the server wants, in words', async () => {
  const ran = await est('csrattrs', ...trusted())
  expect(ran.code).toBe(0)
  expect(ran.out).toMatch(/^key +EC$/m)
  expect(ran.out).toMatch(/^curve or bits +P-256$/m)
  expect(ran.out).toMatch(/^tied to the connection +no$/m)
  expect(ran.out).toContain('ECDSA with SHA-256')
  const asJson = await run(
    site.folder,
    '--json',
    'est',
    'csrattrs',
    '--server',
    site.url,
    ...trusted(),
  )
  expect(JSON.parse(asJson.out)).toMatchObject({ linking: false, template: false })
})

test('enroll, reenroll: serial, names, end, file; the key is made 0600 and the file is whole at any moment', async () => {
  const ran = await enroll('own')
  expect(ran.code, ran.err).toBe(0)
  for (const text of [
    leafIn('own').serialNumber.toLowerCase(),
    `URI:sallyport://${TENANT}/device/press-07`,
    `written to ${at('own.crt')}`,
  ])
    expect(ran.out).toContain(text)
  const first = leafIn('own').serialNumber
  const files = ['--cert', at('own.crt'), '--key', at('own.key'), '--out', at('own.crt')]
  const renewed = await est('reenroll', ...trusted(), ...files, '--new-key', at('next.key'))
  expect(renewed.code, renewed.err).toBe(0)
  expect(leafIn('own').serialNumber).not.toBe(first)
  expect(readdirSync(site.folder).filter((name) => name.startsWith('.own'))).toEqual([])
})

test('a person has to approve: exit 3, what to do; the same command later goes through', async () => {
  const { bench } = site
  const denial = { code: 'enroll.approval', msg: 'somebody must approve', remedy: 'approve' }
  bench.decision = { allow: false, denials: [denial], decision_id: 'd_wait', obligations: {} }
  const waits = complaint(await enroll('wait'))
  expect(waits).toMatchObject({ exit: 3, code: 'enrol.pending' })
  expect(waits.next).toMatch(/^run the same command again in \d+ s or later, with the same key$/)
  expect(existsSync(at('wait.crt'))).toBe(false)
  const now = instant(bench.now)
  const [row] = await bench.pending.list(TENANT, now)
  const answer = {
    state: 'approved',
    by: 'x',
    at: now,
    expiresAt: instant(now + DECIDED_MS),
  } as const
  await bench.pending.decide(TENANT, row!.id, answer)
  const files = ['--key', at('wait.key'), '--out', at('wait.crt')]
  const token = ['--password-file', at('token')]
  expect((await est('enroll', ...trusted(), ...token, ...files)).code).toBe(0)
  bench.decision = { allow: true, denials: [], decision_id: 'd_allowed', obligations: {} }
})

describe('refused', () => {
  test('a wrong token: the sentence of the server, and exit 3', async () => {
    writeFileSync(at('wrong'), 'spt_wrong')
    const files = ['--key', at('w.key'), '--out', at('w.crt'), '--password-file', at('wrong')]
    const said = complaint(await est('enroll', ...trusted(), ...files))
    expect(said).toMatchObject({ exit: 3, code: 'credential', next: expect.stringMatching(/\w/) })
    expect(said.why).toContain('is not valid')
    expect(existsSync(at('w.crt'))).toBe(false)
  })
  test('a revoked certificate renews nothing, and the file stays', async () => {
    await enroll('gone')
    const serial = leafIn('gone').serialNumber.toLowerCase()
    await site.bench.store.revoke(TENANT, { serial }, 'superseded', instant(site.bench.now))
    const files = ['--cert', at('gone.crt'), '--key', at('gone.key'), '--out', at('gone.crt')]
    const said = complaint(await est('reenroll', ...trusted(), ...files))
    expect(said).toMatchObject({ exit: 3, code: 'peer.revoked' })
    expect(leafIn('gone').serialNumber.toLowerCase()).toBe(serial)
  })
  test('a label that is not served', async () => {
    const said = complaint(await enroll('label', '--label', 'nothing'))
    expect(said).toMatchObject({ exit: 1, code: 'label.unknown' })
    expect(said.why).toContain('leave the label out')
  })
  test('the names of another device', async () => {
    const said = complaint(await enroll('other', '--cn', 'press-99'))
    expect(said).toMatchObject({ exit: 1, code: 'name.subject' })
  })

  test('a key that others may read, in each place for one', async () => {
    expect((await enroll('open')).code).toBe(0)
    chmodSync(at('open.key'), 0o644)
    const [key, cert] = [at('open.key'), at('open.crt')]
    const rest = ['--out', at('open2.crt'), ...trusted()]
    for (const args of [
      ['enroll', '--key', key],
      ['enroll', '--key', at('open2.key'), '--cert', cert, '--cert-key', key],
      ['reenroll', '--key', key, '--cert', cert],
      ['reenroll', '--key', key, '--cert', cert, '--new-key', at('open2.key')],
    ] as const) {
      const [verb, ...more] = args
      expect(complaint(await est(verb, ...more, ...rest))).toMatchObject({
        exit: 2,
        code: 'key.exposed',
        next: expect.stringContaining(`chmod 600 ${key}`),
      })
    }
    expect(existsSync(at('open2.crt'))).toBe(false)
  })

  test('a new key that cannot be written: what to do, and nothing is left of it', async () => {
    const ran = await enroll('a', '--key', at('nowhere/new.key'))
    expect(complaint(ran)).toMatchObject({
      exit: 2,
      code: 'file.unwritable',
      next: expect.stringContaining('name another place'),
    })
    expect(existsSync(at('a.crt'))).toBe(false)
  })

  const wrong = [
    ['no root and no pin', ['enroll', '--key', 'k', '--out', 'o']],
    ['a roots file that is not there', ['csrattrs', '--ca', 'none.pem']],
    [
      'a request that is not there',
      ['enroll', '--ca', 'root.pem', '--key', 'r.key', '--out', 'o', '--csr', 'none.csr'],
    ],
    [
      'a key file that holds none',
      ['enroll', '--ca', 'root.pem', '--key', 'none.key', '--out', 'o'],
    ],
    [
      'a certificate without its key',
      ['enroll', '--ca', 'root.pem', '--key', 'k', '--out', 'o', '--cert', 'root.pem'],
    ],
    [
      'a file that holds no certificate',
      ['reenroll', '--ca', 'root.pem', '--key', 'r.key', '--out', 'o', '--cert', 'token'],
    ],
    [
      'a certificate that cannot be read',
      ['reenroll', '--ca', 'root.pem', '--key', 'r.key', '--out', 'o', '--cert', 'broken.pem'],
    ],
  ] as const
  test.for(wrong)('%s: exit 2 with what to do', async ([, [verb, ...args]]) => {
    writeFileSync(
      at('broken.pem'),
      '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
    )
    writeFileSync(at('none.key'), site.root, { mode: 0o600 })
    const given = args.map((each) => (each.startsWith('--') ? each : at(each)))
    const ran = await est(verb, ...given)
    expect(complaint(ran)).toMatchObject({
      exit: 2,
      code: 'usage',
      next: expect.stringMatching(/\w/),
    })
    expect(ran.err).not.toMatch(/the the|ENOENT/)
  })

  test('nothing answers there', async () => {
    const args = ['est', 'cacerts', '--server', 'https://127.0.0.1:1']
    expect(complaint(await run(site.folder, ...args))).toMatchObject({
      exit: 5,
      code: 'gateway.unreachable',
    })
  })
  test('a place that cannot be written: said, and the key is kept for the next try', async () => {
    mkdirSync(at('full.crt'))
    const said = complaint(await enroll('full'))
    expect(said).toMatchObject({ exit: 2, code: 'file.kind' })
    expect(existsSync(at('full.key'))).toBe(true)
    const again = [
      '--key',
      at('full.key'),
      '--out',
      at('full2.crt'),
      '--password-file',
      at('token'),
    ]
    expect((await est('enroll', ...trusted(), ...again)).code).toBe(0)
  })
})
