/** What a node is told: every mistake named with its place, nothing half-accepted. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConfigError, readConfig } from '#gateway'
import { PATHS } from '../../gateway/config/paths.ts'
import { File } from '../../gateway/config/schema.ts'

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'sallyport-config-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

function fault(
  text: string,
  environment: Record<string, string> = {},
): { code: string; place: string; message: string } {
  const file = join(directory, 'gateway.yaml')
  writeFileSync(file, text)
  try {
    readConfig({ file, environment })
  } catch (error) {
    if (error instanceof ConfigError)
      return {
        code: error.code,
        place: error.place.replace(`${directory}/`, ''),
        message: error.message,
      }
    throw error
  }
  throw new Error('the file was accepted')
}

interface Schema {
  readonly type?: unknown
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
}

/** The way to every value that a configuration may hold. */
function ways({ properties, items, anyOf }: Schema, at: string): readonly string[] {
  if (anyOf !== undefined) return anyOf.flatMap((one) => ways(one, at))
  if (items !== undefined) return ways(items, `${at}/*`)
  if (properties === undefined) return [at]
  return Object.entries(properties).flatMap(([key, one]) =>
    ways(one, at === '' ? key : `${at}/${key}`),
  )
}

describe('a mistake in the file', () => {
  test.for([
    { name: 'not YAML', text: 'tenant: [\n', code: 'config.syntax', place: 'gateway.yaml:2:1' },
    {
      name: 'a key twice',
      text: 'site: a\nsite: b\n',
      code: 'config.syntax',
      place: 'gateway.yaml:2:1',
    },
    { name: 'a list', text: '- a\n', code: 'config.syntax', place: 'gateway.yaml:1:1' },
    {
      name: 'unknown key',
      text: 'site: a\nlistn: 127.0.0.1:1\n',
      code: 'config.value',
      place: 'gateway.yaml:2:1',
    },
    {
      name: 'no port',
      text: 'listen: localhost\n',
      code: 'config.value',
      place: 'gateway.yaml:1:1',
    },
    {
      name: 'a tenant with capitals',
      text: '\n\ntenant: Main.Example\n',
      code: 'config.value',
      place: 'gateway.yaml:3:1',
    },
    {
      name: 'a port out of range, deep inside',
      text: 'syslog:\n  - name: siem\n    host: h\n    port: 99999\n    ca_file: ca.pem\n',
      code: 'config.value',
      place: 'gateway.yaml:4:5',
    },
    {
      name: 'a device lifetime that no profile allows',
      text: 'est:\n  device_lifetime_hours: 8760\n',
      code: 'config.value',
      place: 'gateway.yaml:2:3',
    },
    {
      name: 'an unknown key of a sink',
      text: 'syslog:\n  - name: siem\n    host: h\n    port: 6514\n    ca_file: ca.pem\n    token: secret\n',
      code: 'config.value',
      place: 'gateway.yaml:6:5',
    },
  ])('$name', ({ text, code, place }) => {
    expect(fault(text)).toMatchObject({ code, place })
  })

  test('an unknown key is told with those that are known', () => {
    expect(fault('listn: 127.0.0.1:1\n').message).toMatch(/unknown key listn; known: .*listen/)
  })
})

describe('what a schema cannot say', () => {
  test.for([
    { name: 'health on a public address', text: 'operations: 0.0.0.0:9443\n', place: 'operations' },
    { name: 'a time zone nobody has', text: 'timezone: Mars/Olympus\n', place: 'timezone' },
    {
      name: 'two sinks of one name',
      text: 'syslog:\n  - {name: a, host: h, port: 1, ca_file: x}\n  - {name: a, host: h, port: 2, ca_file: x}\n',
      place: 'syslog',
    },
    {
      name: 'an update key with bits that belong to no key',
      text: `update_keys: ['ed25519:${'A'.repeat(42)}B']\n`,
      place: 'update_keys',
    },
    { name: 'a balancer by name', text: 'balancers: [lb.plant.example]\n', place: 'balancers' },
    { name: 'tickets of no pattern', text: "tickets: {pattern: '('}\n", place: 'tickets' },
    {
      name: 'a shared store elsewhere without TLS',
      text: 'store: {redis: {host: redis.plant.example, port: 6379}}\n',
      place: 'store',
    },
    {
      name: 'mail in the clear to another machine',
      text: 'notices: {mail: {host: mail.plant.example, port: 25, tls: none, from: a@plant.example}}\n',
      place: 'notices',
    },
    {
      name: 'a user of the mail server without a password',
      text: 'notices: {mail: {host: mail.plant.example, port: 25, user: a, from: a@plant.example}}\n',
      place: 'notices',
    },
    {
      name: 'two webhooks of one name',
      text: `notices: {webhooks: [${"{name: a, url: 'https://h', ca_file: x, secret_file: y}, ".repeat(2)}]}\n`,
      place: 'notices',
    },
  ])('$name', ({ text, place }) => {
    expect(fault(text)).toMatchObject({ code: 'config.value', place })
  })

  test('a file that is not there', () => {
    expect(() => readConfig({ file: join(directory, 'none.yaml'), environment: {} })).toThrow(
      /cannot be read/,
    )
  })
})

describe('what wins', () => {
  test('defaults alone are a complete node', () => {
    expect(readConfig({ environment: {} })).toMatchObject({ listen: '127.0.0.1:8443', syslog: [] })
  })

  test('arguments over environment over file', () => {
    const file = join(directory, 'order.yaml')
    writeFileSync(file, 'site: file\ngateway: file\ntenant: file.example\n')
    const config = readConfig({
      file,
      environment: { SALLYPORT_SITE: 'environment', SALLYPORT_GATEWAY: 'environment' },
      overrides: { gateway: 'argument' },
    })
    expect(config).toMatchObject({
      tenant: 'file.example',
      site: 'environment',
      gateway: 'argument',
    })
  })

  test('paths in the file are relative to the file', () => {
    const file = join(directory, 'paths.yaml')
    writeFileSync(file, 'data: here\nsyslog:\n  - {name: a, host: h, port: 1, ca_file: ca.pem}\n')
    const config = readConfig({ file, environment: {} })
    expect(config.data).toBe(join(directory, 'here'))
    expect(config.syslog[0]?.ca_file).toBe(join(directory, 'ca.pem'))
  })

  test('a setting that names a file and is left relative to wherever the node was started', () => {
    const settings = ways(File, '')
    expect(settings.filter((way) => /[_/]file$/.test(way) && !PATHS.includes(way))).toEqual([])
    expect(PATHS.filter((way) => !settings.includes(way))).toEqual([])
  })
})
