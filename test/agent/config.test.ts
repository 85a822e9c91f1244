/** agent.json, the same from a command line, and the token: what is read, and what is refused with its place. */
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { configFrom, readConfig, readToken, tokenExposure } from '#agent'
import { parseConfig, printConfig } from '../../agent-tunnel/agent/config.ts'
import { Directory } from './device.ts'

const PIN = 'ab'.repeat(32)
const good = {
  v: 1,
  gateway: 'https://gw.example:8443',
  other_gateways: ['10.0.0.2:8443', '[2001:db8::2]:443', 'gw.other.example:8443'],
  home_after_s: 900,
  device: 'press-07',
  tenant: 'main.sallyport.internal',
  ca_sha256: PIN,
  targets: {
    plc: { tcp: '127.0.0.1:1502' },
    press: { lan: '10.0.0.5:502' },
    six: { tcp: '[::1]:80' },
  },
  key_exchange: 'hybrid',
  carrier: 'websocket',
  proxy: 'socks5://egress.example:1080',
  proxy_auth_file: '/etc/sallyport/proxy-auth',
  keepalive_max_s: 240,
  drain_s: 60,
  accept_deadline_ms: 2000,
  consent_wait_s: 60,
  log_conflict: 'report',
}

describe('agent.json', () => {
  test('what is read prints the same', () => {
    const config = parseConfig(JSON.stringify(good), '/data')
    expect(JSON.parse(printConfig(config))).toEqual(good)
    expect(config.targets.get('plc')).toEqual({
      kind: 'tcp',
      endpoint: { address: '127.0.0.1', port: 1502 },
      consent: false,
    })
  })

  test('what may be left out has its default; an IPv6 gateway keeps its brackets in the file only', () => {
    const config = parseConfig(
      JSON.stringify({ v: 1, gateway: 'https://[::1]:9', device: 'a', ca_sha256: PIN }),
      '/d',
    )
    expect(config).toMatchObject({
      gateway: { host: '::1', port: 9 },
      tenant: 'main.sallyport.internal',
      keyExchange: 'hybrid',
      acceptDeadlineMs: 2000,
    })
    expect(printConfig(config)).toContain('"https://[::1]:9"')
  })

  test.for([
    ['not JSON', '{"v": 1,\n "gateway": }', /agent\.json: not JSON.*"gateway": }/s],
    ['not an object', '[]', /agent\.json: an object/],
    ['another version', { v: 2 }, /agent\.json: v:/],
    ['a key nobody knows', { tagrets: {} }, /agent\.json: tagrets: unknown/],
    [
      'a gateway elsewhere that is none',
      { other_gateways: ['gw2'] },
      /other_gateways\.0: .*host:port/,
    ],
    ['http', { gateway: 'http://gw.example' }, /gateway: .*https/],
    ['a password in the URL', { gateway: 'https://u:p@gw.example' }, /gateway: .*password/],
    ['a path in the URL', { gateway: 'https://gw.example/est' }, /gateway: only host and port/],
    ['no URL', { gateway: 'gw.example' }, /gateway: a URL/],
    ['a device with capitals', { device: 'Press' }, /device: /],
    ['two hyphens', { device: 'a--b' }, /device: /],
    ['forty-one characters', { device: 'a'.repeat(41) }, /device: /],
    ['a tenant without a dot', { tenant: 'main' }, /tenant: /],
    ['a short pin', { ca_sha256: 'ab' }, /ca_sha256: .*64 hex/],
    ['targets in a list', { targets: [] }, /targets: an object/],
    [
      'a target name with a space',
      { targets: { 'p l c': { tcp: '127.0.0.1:1' } } },
      /targets\.p l c: /,
    ],
    ['a target that is a text', { targets: { plc: '127.0.0.1:1' } }, /targets\.plc: an object/],
    [
      'two kinds',
      { targets: { plc: { tcp: '127.0.0.1:1', lan: '10.0.0.1:1' } } },
      /targets\.plc: exactly one/,
    ],
    ['an unknown kind', { targets: { plc: { sctp: '127.0.0.1:1' } } }, /targets\.plc: exactly one/],
    [
      'a loopback address beside this machine, by UDP',
      { targets: { plc: { lan_udp: '127.0.0.1:1' } } },
      /targets\.plc\.lan_udp: a loopback address/,
    ],
    [
      'a name instead of an address',
      { targets: { plc: { tcp: 'localhost:1502' } } },
      /targets\.plc\.tcp: an IP address \(not a name\)/,
    ],
    ['no port', { targets: { plc: { tcp: '127.0.0.1' } } }, /targets\.plc\.tcp: "address:port"/],
    ['port 0', { targets: { plc: { tcp: '127.0.0.1:0' } } }, /targets\.plc\.tcp: /],
    ['port 70000', { targets: { plc: { tcp: '127.0.0.1:70000' } } }, /targets\.plc\.tcp: /],
    [
      'the wildcard',
      { targets: { plc: { tcp: '0.0.0.0:1502' } } },
      /targets\.plc\.tcp: .*wildcard/,
    ],
    [
      'loopback as lan',
      { targets: { plc: { lan: '127.0.0.9:1502' } } },
      /targets\.plc\.lan: .*owner is observed/,
    ],
    [
      'mapped loopback as lan',
      { targets: { plc: { lan: '[::ffff:127.0.0.1]:1502' } } },
      /targets\.plc\.lan: /,
    ],
    ['a key exchange nobody knows', { key_exchange: 'rot13' }, /key_exchange: /],
    ['a deadline of a year', { accept_deadline_ms: 1e10 }, /accept_deadline_ms: /],
    ['home after a second', { home_after_s: 1 }, /home_after_s: /],
    ['a conflict to be ignored', { log_conflict: 'ignore' }, /log_conflict: /],
  ] as const)('%s is named with its place', ([, change, message]) => {
    const text = typeof change === 'string' ? change : JSON.stringify({ ...good, ...change })
    expect(() => parseConfig(text, '/data')).toThrow(message)
    expect(() => parseConfig(text, '/data')).toThrow(
      expect.objectContaining({ code: 'config.invalid' }) as Error,
    )
  })

  test('options of a command line are checked the same way', () => {
    const setup = { gateway: 'https://gw.example:8443', device: 'press-07', rootSha256: PIN }
    expect(
      configFrom(
        { ...setup, targets: ['plc=tcp:127.0.0.1:1502', 'six=lan:[2001:db8::1]:502'] },
        '/d',
      ).targets.size,
    ).toBe(2)
    expect(() => configFrom({ ...setup, targets: ['plc'] }, '/d')).toThrow(/--target: plc/)
    expect(() =>
      configFrom({ ...setup, targets: ['a=tcp:127.0.0.1:1', 'a=tcp:127.0.0.1:2'] }, '/d'),
    ).toThrow(/twice/)
    expect(() => configFrom({ ...setup, targets: ['a=tcp:plc.local:1'] }, '/d')).toThrow(
      /options: targets\.a\.tcp/,
    )
  })

  test.for([
    [0o600, false],
    [0o400, false],
    [0o640, true],
    [0o604, true],
    [0o620, true],
  ] as const)('a token file of mode %o is told of as others’ too: %j', ([mode, told]) => {
    using directory = new Directory()
    const file = join(directory.path, 'token')
    writeFileSync(file, 'abc')
    chmodSync(file, mode)
    expect(tokenExposure(file)?.includes(`chmod 600 ${file}`) ?? false).toBe(told)
  })

  test('no file, no token: what to do is said', () => {
    using directory = new Directory()
    expect(() => readConfig(directory.path)).toThrow(
      expect.objectContaining({ code: 'config.missing' }) as Error,
    )
    const file = join(directory.path, 'token')
    expect(() => readToken(file, 'unused')).toThrow(
      expect.objectContaining({ code: 'token.missing' }) as Error,
    )
    writeFileSync(file, ' abc\n')
    expect(readToken(file, 'unused')).toBe('abc')
    expect(readToken(undefined, ' abc ')).toBe('abc')
    expect(() => readToken(undefined, undefined)).toThrow(/no enrolment token/)
    writeFileSync(file, 'two words')
    expect(() => readToken(file, 'unused')).toThrow(/one line/)
  })
})
