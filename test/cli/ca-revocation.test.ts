/** `ca revoke`, `ca crl`, `device replace` and `device decommission`: what is asked, and what a person reads. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { registerCaRevocation } from '../../cli/commands/ca-revocation.ts'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'
import { run } from './run.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await startFakeGateway()
})
afterAll(async () => gateway[Symbol.asyncDispose]())

const SERIAL = '4a'.repeat(16)
const ISSUER = 'ab'.repeat(20)
const revocation = {
  epoch: 3,
  reason: 'keyCompromise',
  serials: [SERIAL],
  tunnels: 1,
  sessions: [{ id: `s_${'0'.repeat(26)}`, time_to_cut_ms: 3.2 }],
  time_to_cut_ms: 12.34,
}
const nothing = { ...revocation, serials: [], tunnels: 0, sessions: [], time_to_cut_ms: 0 }
const device = (state: string) => ({
  id: 'press-07',
  zone: 'default',
  state,
  labels: {},
  created_at: 1_795_224_923,
  connected: false,
  connected_at: null,
  island: false,
  tls: null,
  certificate: null,
  agent_version: null,
  drift: null,
  processes: [],
})
const token = {
  device: 'press-07',
  token: 'spt_0',
  expires_at: 1_795_224_923,
  ca_sha256: 'c'.repeat(64),
  install_command: null,
  enrol_command: 'sallyport agent enroll --device press-07',
}
const list = (issuer: string) => ({
  issuer,
  number: 7,
  this_update: 1_795_224_923,
  next_update: 1_795_311_323,
  entries: 2,
  url: `https://gw/crl/${issuer}.crl`,
  pem: '-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n',
})
const last = () => gateway.calls.at(-1)

describe('device', () => {
  test('decommission: the state, what ended, how fast, the next step', async () => {
    const body = { device: device('retired'), revocation }
    gateway.answer('POST /api/v1/devices/press-07/decommission', { body })
    const ran = await run(gateway.home, 'device', 'decommission', 'press-07', '--reason', 'scrap')
    expect(ran.code).toBe(0)
    for (const text of [
      'press-07 is retired',
      'revoked 1 certificate',
      SERIAL,
      'cut 1 tunnel and 1 session in 12.3 ms',
      'next: ',
    ])
      expect(ran.out).toContain(text)
    expect(last()?.body).toEqual({ reason: 'scrap' })
  })
  test('decommission, as JSON', async () => {
    const ran = await run(
      gateway.home,
      '--json',
      'device',
      'decommission',
      'press-07',
      '--reason',
      'x',
    )
    expect(JSON.parse(ran.out)).toMatchObject({ device: { state: 'retired' }, revocation })
  })
  test('replace: the token and what to run', async () => {
    const body = { device: device('pending'), token, revocation: nothing }
    gateway.answer('POST /api/v1/devices/press-07/replace', { status: 201, body })
    const ran = await run(gateway.home, 'device', 'replace', 'press-07', '--reason', 'board')
    expect(ran.code).toBe(0)
    for (const text of [
      'press-07 waits for the machine',
      '(none was left)',
      'nothing was open',
      'spt_0',
      'sallyport agent enroll',
    ])
      expect(ran.out).toContain(text)
    expect(last()?.body).toEqual({ reason: 'board' })
  })
  test.for(['replace', 'decommission'])('%s wants a reason and a name', async (verb) => {
    const before = gateway.calls.length
    expect((await run(gateway.home, 'device', verb, 'press-07')).code).toBe(2)
    expect((await run(gateway.home, 'device', verb, 'Press_07', '--reason', 'x')).code).toBe(2)
    expect(gateway.calls).toHaveLength(before)
  })
})

describe('ca revoke', () => {
  test('a serial, however it is written', async () => {
    gateway.answer(`POST /api/v1/certificates/${SERIAL}/revoke`, { body: revocation })
    for (const serial of [SERIAL, SERIAL.toUpperCase(), (SERIAL.match(/../g) ?? []).join(':')]) {
      const ran = await run(
        gateway.home,
        'ca',
        'revoke',
        serial,
        '--reason',
        'keyCompromise',
        '--comment',
        'seen',
      )
      expect(ran.code).toBe(0)
      expect(ran.out).toContain('next: the list that says so: sallyport ca crl')
      expect(last()?.body).toEqual({ reason: 'keyCompromise', comment: 'seen' })
    }
  })
  test('a device', async () => {
    const body = { device: device('revoked'), revocation }
    gateway.answer('POST /api/v1/devices/press-07/revoke', { body })
    const ran = await run(
      gateway.home,
      'ca',
      'revoke',
      '--device',
      'press-07',
      '--reason',
      'superseded',
    )
    expect(ran.code).toBe(0)
    expect(ran.out).toContain('press-07 is revoked')
    expect(ran.out).toContain('next: a new identity for it: sallyport device replace press-07')
  })
  test.for([
    ['nothing named', []],
    ['two things named', [SERIAL, '--device', 'press-07']],
    ['a serial that is none', ['xyz']],
    ['a reason that is none', [SERIAL, '--reason', 'because']],
  ] as const)('%s: exit 2', async ([, args]) => {
    const before = gateway.calls.length
    const ran = await run(gateway.home, 'ca', 'revoke', '--reason', 'superseded', ...args)
    expect(ran.code).toBe(2)
    expect(gateway.calls).toHaveLength(before)
  })
  test.for([
    ['cACompromise', true],
    ['superseded', false],
  ] as const)(
    'an issuer, %s: tokens for who has none left, new pins said: %s',
    async ([reason, pins]) => {
      gateway.answer(`POST /api/v1/ca/issuers/${ISSUER}/revoke`, {
        body: { ...revocation, reason },
      })
      const ran = await run(gateway.home, 'ca', 'revoke', '--issuer', ISSUER, '--reason', reason)
      expect(ran.code).toBe(0)
      expect(ran.out).toContain('no live certificate now: sallyport device token ID')
      expect(ran.out).not.toContain('device replace')
      expect(ran.out.includes('pose as a gateway')).toBe(pins)
    },
  )
  test("a device's reason for an issuer would end keys that the new CA serves: exit 2, and what to say", async () => {
    const before = gateway.calls.length
    const ran = await run(
      gateway.home,
      'ca',
      'revoke',
      '--issuer',
      ISSUER,
      '--reason',
      'keyCompromise',
    )
    expect(ran.code).toBe(2)
    expect(ran.err).toContain('for a lost CA key say cACompromise')
    expect(gateway.calls).toHaveLength(before)
  })
})

describe('ca crl', () => {
  test('each list with its number and dates', async () => {
    gateway.answer('GET /api/v1/ca/crls', { body: { items: [list(ISSUER)] } })
    const ran = await run(gateway.home, 'ca', 'crl')
    expect(ran.code).toBe(0)
    for (const text of [ISSUER, '7', 'https://gw/crl/']) expect(ran.out).toContain(text)
  })
  test('as a file; with several, the one that is named', async () => {
    const out = join(gateway.home, 'a.crl')
    const other = 'cd'.repeat(20)
    gateway.answer('GET /api/v1/ca/crls', { body: { items: [list(ISSUER), list(other)] } })
    const which = await run(gateway.home, 'ca', 'crl', '--out', out)
    expect(which.code).toBe(2)
    expect(which.err).toContain(`--issuer ${ISSUER} or ${other}`)
    const ran = await run(gateway.home, 'ca', 'crl', '--out', out, '--issuer', other)
    expect(ran.code).toBe(0)
    expect(readFileSync(out, 'utf8')).toBe(list(other).pem)
  })
})

describe('ca certificates', () => {
  const row = {
    serial: SERIAL,
    profile: 'device',
    subject: 'press-07',
    issuer: ISSUER,
    state: 'revoked',
    not_before: 1,
    not_after: 1_795_311_323,
    issued_at: 1,
    first_used_at: null,
    revoked_at: 1_795_224_923,
    reason: 'keyCompromise',
    renews: null,
    spki_sha256: 'd'.repeat(64),
  }
  test('of a device', async () => {
    gateway.answer('GET /api/v1/certificates?device=press-07&limit=100', { body: { items: [row] } })
    const ran = await run(gateway.home, 'ca', 'certificates', '--device', 'press-07')
    expect(ran.code).toBe(0)
    expect(ran.out).toContain('keyCompromise')
  })
  test('none yet: the next step', async () => {
    gateway.answer('GET /api/v1/certificates?limit=5', { body: { items: [] } })
    const ran = await run(gateway.home, 'ca', 'certificates', '--limit', '5')
    expect(ran.out).toContain('sallyport device add')
  })
})

test('a command `ca` that is there already is added to', () => {
  const program = new Command('sallyport')
  const ca = program.command('ca').description('made elsewhere')
  registerCaRevocation(program)
  expect(program.commands).toEqual([ca])
  expect(ca.commands.map((each) => each.name())).toEqual(['revoke', 'crl', 'certificates'])
})
