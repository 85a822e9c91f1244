/** `sallyport ca` and `sallyport device` as somebody uses them beside a node that runs. */
import { execFileSync } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createCsr, enrollRequest, parseCertsOnly } from '#est'
import { saveCredentials } from '../../cli/login/index.ts'
import {
  newKey,
  send,
  startNode,
  TENANT,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../support/node.ts'
import { dialDevice, expecting } from '../support/tunnels.ts'
import { run, type Ran } from './run.ts'

let node: TestNode
let home: string
const at = (name: string) => join(home, name)

beforeAll(async () => {
  node = await startNode({ config: 'est:\n  device_lifetime_hours: 24\n' })
  home = mkdtempSync(join(tmpdir(), 'sallyport-cli-node-'))
  writeFileSync(at('pass'), 'correct horse battery\n', { mode: 0o600 })
  await signIn(node.admin, 'default')
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

async function signIn({ credentials }: Person, profile: string): Promise<void> {
  const folder = join(home, 'credentials', ...(profile === 'default' ? [] : ['profiles', profile]))
  await saveCredentials(folder, credentials)
}
const cli = async (...args: string[]): Promise<Ran> => await run(home, ...args)
const onDisk = async (verb: string, ...args: string[]): Promise<Ran> =>
  await cli('ca', verb, '--config', join(node.data, 'node.yaml'), '--data', node.data, ...args)
async function ok(ran: Promise<Ran>): Promise<string> {
  const { code, out, err } = await ran
  expect(code, err).toBe(0)
  return out
}
async function json<T>(...args: string[]): Promise<T> {
  return JSON.parse(await ok(cli('--json', ...args))) as T
}
function complaint({ code, err }: Ran) {
  const line = (name: string) => new RegExp(`^  ${name}  +(.*)$`, 'm').exec(err)?.[1]
  return { exit: code, code: line('code'), next: line('next') }
}
const serialOf = ({ chain }: DeviceIdentity) =>
  new X509Certificate(chain[0] ?? '').serialNumber.toLowerCase()
const issuerOf = ({ chain }: DeviceIdentity) => new X509Certificate(chain[0] ?? '').issuer
const keyIdOf = async ({ id }: DeviceIdentity): Promise<string> =>
  (await json<{ issuer: string }[]>('ca', 'certificates', '--device', id))[0]?.issuer ?? ''

/** The DER of lists, in hex: a serial that is listed stands in it. */
const listed = (lists: readonly { pem: string }[]) =>
  lists
    .map(({ pem }) => Buffer.from(pem.replaceAll(/-----[^-]+-----/g, ''), 'base64').toString('hex'))
    .join('\n')

test('status beside a running node: the counts, and nothing of it changes anything', async () => {
  await node.device('press-01')
  const before = node.size()
  const out = await ok(onDisk('status'))
  expect(out).toMatch(/^certificates active +[1-9]/m)
  expect(out).toMatch(/^certificates intended, not yet signed +0$/m)
  expect(out).toMatch(/^changes that the log has yet to hear +0$/m)
  expect(node.acts(before)).toEqual([])
})

test('init on a node that made its CA by itself: the root leaves, the log says who and what, the node goes on', async () => {
  const from = node.size()
  const args = ['--root-to', at('root.pem'), '--root-passphrase-file', at('pass')]
  expect(await ok(onDisk('init', ...args))).toContain('taken off this node')
  expect(existsSync(join(node.data, 'ca', 'root.key.pem'))).toBe(false)
  const event = await until('the log has it', () =>
    node.events(from).find(({ text }) => text.includes('ca:export-root')),
  )
  expect(event.text).toContain('operator|')
  expect((await node.device('press-02')).chain).toHaveLength(1)
})

test('device add, certificates, show: what was issued and until when', async () => {
  const added = await json<{ token: { token: string } }>('device', 'add', 'press-03')
  const key = newKey()
  const csr = createCsr(key, { deviceId: 'press-03', tenant: TENANT })
  const answer = await send(node, enrollRequest({ csr, token: added.token.token }))
  expect(answer.status).toBe(200)
  const [row] = await json<
    { serial: string; state: string; not_after: number; issued_at: number }[]
  >('ca', 'certificates', '--device', 'press-03')
  expect(row?.state).toBe('active')
  // The life that is configured, less the five minutes that it begins in the past.
  const hours = ((row?.not_after ?? 0) - (row?.issued_at ?? 0)) / 3_600
  expect(hours).toBeGreaterThan(23.8)
  expect(hours).toBeLessThanOrEqual(24)
  expect(await ok(cli('ca', 'certificates', '--device', 'press-03'))).toContain(row?.serial)
  expect(await ok(cli('device', 'show', 'press-03'))).toContain(row?.serial)
  expect(complaint(await cli('device', 'add', 'press-03'))).toMatchObject({
    exit: 1,
    code: 'device.exists',
  })
})

test('device add into a zone that policy does not describe: refused with those it does, and nothing is made', async () => {
  const ran = await cli('device', 'add', 'press-91', '--zone', 'hall-z')
  expect(complaint(ran)).toMatchObject({ exit: 1, code: 'zone.unknown' })
  expect(ran.err).toContain('no zone hall-z; it describes critical, default')
  expect(complaint(ran).next).toMatch(
    /name one of its zones, or .*describe hall-z in the site data/,
  )
  expect(node.rows('SELECT id FROM device WHERE id = ?', 'press-91')).toEqual([])
  expect(await ok(cli('device', 'add', 'press-91', '--zone', 'critical'))).toContain(
    'zone critical',
  )
})

test('a zone that policy describes no more: device and people are told of it, and not of what only follows from it', async () => {
  const device = await node.device('press-92', { plc: expecting() })
  const { token } = await json<{ token: string }>('device', 'token', 'press-92')
  const vendor = await node.person('zoe', { party: 'vendor', roles: ['vendor'], vendor: 'maker' })
  node.change("UPDATE device SET zone = 'hall-z' WHERE id = ?", 'press-92')

  const csr = createCsr(newKey(), { deviceId: 'press-92', tenant: TENANT })
  const enrolled = await send(node, enrollRequest({ csr, token }))
  expect([enrolled.status, enrolled.text]).toEqual([
    403,
    expect.stringMatching(
      /^policy\.denied: zone\.unknown \(the policy in force describes no zone hall-z\); ask the operator/,
    ),
  ])
  const tunnel = await dialDevice(node, device)
  expect(await tunnel.closed).toMatchObject({
    code: 'zone.unknown',
    message: 'the policy in force describes no zone hall-z',
  })
  const asked = { device: 'press-92', processes: ['plc'], duration_s: 600, reason: 'service' }
  const { status, body } = await vendor.call('POST', '/grants', asked)
  expect([status, body.code, body.denials?.[0]?.code]).toEqual([
    403,
    'zone.unknown',
    'zone.unknown',
  ])
  expect(body.denials?.length).toBeGreaterThan(1)
})

test('revoke a serial: what ended, and the list as openssl reads it from the file', async () => {
  const device = await node.device('press-04')
  const serial = serialOf(device)
  const colons = (serial.match(/../g) ?? []).join(':').toUpperCase()
  const args = [
    'ca',
    'revoke',
    colons,
    '--reason',
    'keyCompromise',
    '--comment',
    'seen on a USB stick',
  ]
  const out = await ok(cli(...args))
  expect(out).toContain('revoked 1 certificate')
  expect(out).toContain('nothing was open')
  expect(out).toContain('next: the list that says so: sallyport ca crl')
  const text = await until('the list has it', async () => {
    await ok(cli('ca', 'crl', '--out', at('list.pem')))
    const said = execFileSync('openssl', ['crl', '-in', at('list.pem'), '-noout', '-text'], {
      encoding: 'utf8',
    })
    return said.includes(serial.toUpperCase()) ? said : undefined
  })
  expect(text).toContain('Key Compromise')
  expect(node.events().some((event) => event.text.includes('seen on a USB stick'))).toBe(true)
  const again = await json<{ serials: string[] }>('ca', 'revoke', serial, '--reason', 'superseded')
  expect(again.serials).toEqual([])
})

const refused = [
  [
    'an unknown serial',
    ['ca', 'revoke', '4f'.repeat(16), '--reason', 'superseded'],
    1,
    'certificate.unknown',
  ],
  [
    'an unknown device',
    ['ca', 'revoke', '--device', 'nobody', '--reason', 'superseded'],
    1,
    'device.unknown',
  ],
  [
    'an unknown issuer',
    ['ca', 'revoke', '--issuer', 'ab'.repeat(20), '--reason', 'superseded'],
    1,
    'issuer.unknown',
  ],
  [
    'a device and an issuer',
    ['ca', 'revoke', '--device', 'a', '--issuer', 'ab'.repeat(20), '--reason', 'superseded'],
    2,
    'usage',
  ],
  [
    'an issuer that is none',
    ['ca', 'revoke', '--issuer', 'xyz', '--reason', 'superseded'],
    2,
    'usage',
  ],
  [
    "a CA's reason for a device",
    ['ca', 'revoke', '--device', 'press-01', '--reason', 'cACompromise'],
    2,
    'usage',
  ],
  ['no reason', ['ca', 'revoke', '4f'.repeat(16)], 2, undefined],
  ['an unknown issuer of a list', ['ca', 'crl', '--issuer', 'ab', '--out', 'x.pem'], 2, 'usage'],
  ['nobody signed in', ['--profile', 'nobody', 'ca', 'crl'], 4, 'login.none'],
  [
    'nobody signed in, revoking',
    ['--profile', 'nobody', 'ca', 'revoke', '--device', 'press-01', '--reason', 'superseded'],
    4,
    'login.none',
  ],
] as const
test.for(refused)('%s: refused with the next step', async ([, args, exit, code]) => {
  const said = complaint(await cli(...args))
  expect(said).toMatchObject(code === undefined ? { exit } : { exit, code })
  expect(said.next).toMatch(/\w/)
})

test('an operator may not revoke: exit 3, with the rule, and nothing ends', async () => {
  await signIn(await node.person('olga', { party: 'staff', roles: ['operator'] }), 'olga')
  const args = [
    '--profile',
    'olga',
    'ca',
    'revoke',
    '--device',
    'press-01',
    '--reason',
    'superseded',
  ]
  const ran = await cli(...args)
  expect(ran.code).toBe(3)
  expect(ran.err).toMatch(/^ {2}id {4}d_/m)
  const [row] = await json<{ state: string }[]>('ca', 'certificates', '--device', 'press-01')
  expect(row?.state).toBe('active')
})

test('replace and decommission: the states, the token, and that the old identity is worth nothing', async () => {
  const device = await node.device('press-05')
  const replaced = await ok(cli('device', 'replace', 'press-05', '--reason', 'board burnt'))
  for (const text of [
    'press-05 waits for the machine',
    'revoked 1 certificate',
    'spt_',
    'agent enroll',
  ])
    expect(replaced).toContain(text)
  await expect(node.renew(device)).rejects.toThrow(/was revoked/)
  const ended = await ok(cli('device', 'decommission', 'press-05', '--reason', 'scrap'))
  expect(ended).toContain('press-05 is retired')
  expect(complaint(await cli('device', 'replace', 'press-05', '--reason', 'x'))).toMatchObject({
    exit: 1,
    code: 'device.state',
    next: expect.stringContaining('device add'),
  })
})

test('rotate --now: the node signs with it within seconds; then the old CA is revoked, and not before', async () => {
  const old = await node.device('press-06')
  const id = await keyIdOf(old)
  const early = ['ca', 'revoke', '--issuer', id, '--reason', 'cACompromise']
  expect(complaint(await cli(...early))).toMatchObject({
    exit: 1,
    code: 'issuer.active',
    next: expect.stringContaining('ca rotate --now'),
  })
  const root = ['--root-key', at('root.pem'), '--root-passphrase-file', at('pass')]
  expect(await ok(onDisk('rotate', '--now', ...root))).toContain('devices follow by themselves')
  const next = await until('the new CA signs', async () => {
    const renewed = await node.renew(old)
    return issuerOf(renewed) === issuerOf(old) ? undefined : renewed
  })
  expect(await ok(cli('ca', 'crl'))).toContain(id)
  const out = await ok(cli(...early, '--comment', 'the HSM was open'))
  expect(out).toContain(serialOf(old))
  expect(out).toContain('no live certificate now: sallyport device token ID')
  expect(out).toContain('sallyport ca rotate --root --now')
  await expect(node.renew(old)).rejects.toThrow(/was revoked/)
  expect((await node.renew(next)).chain).toHaveLength(1)
  expect((await node.device('press-07')).chain).toHaveLength(1)
  expect(await ok(onDisk('status'))).toMatch(/^retired /m)
})

test('an issuing CA that waits for its turn is not revoked, or it would sign all the same; past its turn it is', async () => {
  const root = ['--root-key', at('root.pem'), '--root-passphrase-file', at('pass')]
  const known = (await json<{ issuer: string }[]>('ca', 'crl')).map(({ issuer }) => issuer)
  await ok(onDisk('rotate', ...root))
  const id = await until('the waiting CA has its list', async () =>
    (await json<{ issuer: string }[]>('ca', 'crl'))
      .map(({ issuer }) => issuer)
      .find((issuer) => !known.includes(issuer)),
  )
  const revoke = ['ca', 'revoke', '--issuer', id, '--reason', 'cACompromise']
  expect(complaint(await cli(...revoke))).toMatchObject({
    exit: 1,
    code: 'issuer.next',
    next: expect.stringContaining('ca rotate --now'),
  })
  await ok(onDisk('rotate', '--now'))
  await ok(onDisk('rotate', '--now', ...root))
  await until('another signs', async () => {
    const { code } = await cli(...revoke)
    return code === 0 ? true : undefined
  })
  expect((await node.device('press-09')).chain).toHaveLength(1)
})

test('rotate --root --now: tokens made from then on name the new root, without a restart', async () => {
  const before = readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').trim()
  const root = ['--root-key', at('root.pem'), '--root-passphrase-file', at('pass')]
  const ran = await onDisk('rotate', '--root', '--now', ...root)
  expect(ran.code, ran.err).toBe(0)
  const after = await until('the new root counts', () => {
    const pin = readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').trim()
    return pin === before ? undefined : pin
  })
  const added = await json<{ token: { ca_sha256: string; enrol_command: string } }>(
    'device',
    'add',
    'press-08',
  )
  expect(added.token.ca_sha256).toBe(after)
  expect(added.token.enrol_command).toContain(after)
  expect(await ok(onDisk('status'))).toContain(after)
  // Who pinned the old root is still served: by the certificate that joins the two.
  expect(await ok(cli('device', 'list'))).toContain('press-08')
  const args = ['--to', at('root2.pem'), '--passphrase-file', at('pass')]
  expect(await ok(onDisk('export-root', ...args))).toContain('taken off this node')
})

test('tokens: a new one ends the unused before it; one is ended, one is freed for another key', async () => {
  interface Row {
    readonly id: string
    readonly state: string
    readonly serial: string | null
  }
  const tokens = async () => await json<Row[]>('device', 'tokens', 'press-20')
  const tokenOf = async (...args: string[]) =>
    (await json<{ token: string }>('device', 'token', 'press-20', ...args)).token
  const enrolled = async (token: string, key = newKey()) =>
    await send(
      node,
      enrollRequest({ csr: createCsr(key, { deviceId: 'press-20', tenant: TENANT }), token }),
    )
  const first = (await json<{ token: { token: string } }>('device', 'add', 'press-20')).token.token
  const second = await tokenOf()
  expect((await tokens()).map(({ state }) => state)).toEqual(['unused', 'revoked'])
  expect((await enrolled(first)).status).toBe(401)
  // Ended before anybody used it.
  const [shown] = await tokens()
  const ended = await ok(
    cli('device', 'revoke-token', 'press-20', shown?.id ?? '', '--reason', 'mailed'),
  )
  expect(ended).toContain(`${shown?.id} of press-20 is revoked`)
  expect((await enrolled(second)).status).toBe(401)
  const said = node.events().map(({ text }) => text)
  expect(said.some((text) => text.includes('revoke: mailed'))).toBe(true)
  expect(said.filter((text) => text.includes('a newer one is made'))).toHaveLength(1)
  // The key was lost with the disk: another may use the same token.
  const third = await tokenOf()
  expect((await enrolled(third)).status).toBe(200)
  const refused = await enrolled(third)
  expect([refused.status, refused.text]).toEqual([403, expect.stringContaining('token.bound')])
  const [used] = await tokens()
  expect(used).toMatchObject({ state: 'used', serial: expect.stringMatching(/^[0-9a-f]{32}$/) })
  const args = ['device', 'rebind-token', 'press-20', used?.id ?? '', '--reason', 'disk replaced']
  const from = node.size()
  const endAnyway = ['device', 'revoke-token', 'press-20', used?.id ?? '', '--reason', 'x']
  expect(complaint(await cli(...endAnyway))).toMatchObject({
    exit: 1,
    code: 'token.used',
    next: expect.stringContaining(`sallyport ca revoke ${used?.serial}`),
  })
  expect(node.events(from).filter(({ text }) => text.includes('revoke: x'))).toEqual([])
  expect(await ok(cli(...args))).toMatch(/ is unused, until 2/)
  const told = node.events(from).map(({ code }) => code)
  expect(told.filter((code) => code === 'cert.revoke')).toHaveLength(1)
  await until('the list names it', async () =>
    listed(await json<{ pem: string }[]>('ca', 'crl')).includes(used?.serial ?? ''),
  )
  expect((await enrolled(third)).status).toBe(200)
  const rows = await json<{ serial: string; state: string }[]>(
    'ca',
    'certificates',
    '--device',
    'press-20',
  )
  expect(rows.find(({ serial }) => serial === used?.serial)?.state).toBe('revoked')
  expect(await ok(cli('device', 'tokens', 'press-20'))).toMatch(/^TOKEN +KIND +STATE/)
  for (const [verb, id, exit, code] of [
    ['revoke-token', shown?.id ?? '', 1, 'token.state'],
    ['rebind-token', shown?.id ?? '', 1, 'token.state'],
    ['rebind-token', `t_${'0'.repeat(26)}`, 1, 'token.unknown'],
    ['revoke-token', 'spt_abc', 2, 'usage'],
  ] as const)
    expect(complaint(await cli('device', verb, 'press-20', id, '--reason', 'x'))).toMatchObject({
      exit,
      code,
      next: expect.stringContaining('sallyport device tokens press-20'),
    })
  expect((await cli('--profile', 'nobody', 'device', 'tokens', 'press-20')).code).toBe(4)
})

test('import --now under a root of RSA-4096: the running node signs with it within its next look, and serves the chain', async () => {
  const file = (name: string) => join(home, `foreign-${name}`)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' })
  writeFileSync(
    file('ext'),
    'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n' +
      'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n',
  )
  const root = ['-x509', '-newkey', 'rsa:4096', '-days', '3650', '-subj', '/O=Plant/CN=Plant Root']
  const ca = ['-addext', 'keyUsage=critical,keyCertSign,cRLSign']
  openssl('req', ...root, ...ca, '-noenc', '-keyout', file('root.key'), '-out', file('root.crt'))
  const edge = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-subj', '/CN=Plant Edge']
  openssl('req', ...edge, '-noenc', '-keyout', file('edge.key'), '-out', file('edge.csr'))
  const by = ['-CA', file('root.crt'), '-CAkey', file('root.key'), '-extfile', file('ext')]
  const asked = ['-req', '-in', file('edge.csr'), '-days', '900', '-set_serial', '77']
  openssl('x509', ...asked, ...by, '-sha256', '-out', file('edge.crt'))
  const chain = readFileSync(file('edge.crt'), 'utf8') + readFileSync(file('root.crt'), 'utf8')
  writeFileSync(file('chain.pem'), chain)

  const { token } = await json<{ token: { token: string } }>('device', 'add', 'press-93')
  const args = ['--chain', file('chain.pem'), '--key', file('edge.key'), '--now']
  const out = await ok(onDisk('import', ...args))
  const anchor = readFileSync(file('root.crt'), 'utf8')
  expect(out).toContain(createHash('sha256').update(new X509Certificate(anchor).raw).digest('hex'))
  expect(out).toContain('none follows by itself')
  // The port is under the new root as soon as the node has looked: whoever knows only the old one is not let on.
  const under = { port: node.port, anchor }
  const csr = createCsr(newKey(), { deviceId: 'press-93', tenant: TENANT })
  const answer = await until('the node is under the new root', async () =>
    send(under, enrollRequest({ csr, token: token.token })).catch(() => undefined),
  )
  expect(answer.status, answer.text).toBe(200)
  const [device] = parseCertsOnly(answer.text)
  expect(new X509Certificate(device ?? '').issuer).toBe('CN=Plant Edge')
  const { text } = await send(under, { method: 'GET', path: '/.well-known/est/cacerts' })
  const subjects = parseCertsOnly(text).map((der) => new X509Certificate(der).subject)
  expect(subjects).toContain('CN=Plant Edge')
  expect(subjects).toContain('O=Plant\nCN=Plant Root')
})
