/** The envelope: what callers leave out, what is brought into one form, and that schema and types agree. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ADMIN_OPERATIONS,
  adminCall,
  authnMethods,
  canonicalIp,
  emptyInput,
  httpFacts,
  inputFor,
  POINT_NAMES,
  pointSchemas,
} from '#policy'
import { encodeInput, prepare } from '../../policy/input.ts'
import { compile, inputSchema, siteSchema } from '../../policy/schema.ts'
import type { Schema } from '../../policy/schema.ts'
import { baseInputs, defaultSite } from '../../policy/toolchain/vectors.ts'

const bases = await baseInputs()

test('an empty input has every key, null or []', () => {
  const input = emptyInput('session.open')
  expect(input).toMatchObject({ v: 1, action: 'session.open', device: null, grants: [], locks: [] })
  expect(input.subject.authn).toEqual({ methods: [], acr: null, at: null })
  expect(compile(inputSchema)(input)).toBeUndefined()
})

test('a part given is completed, to any depth', () => {
  const input = inputFor('session.open', {
    device: { id: 'press-07' },
    process: { id: 'plc', observed: { sha256: 'aa', others: [{ uid: 0 }] } },
    grants: [{ id: 'g_1' }],
  })
  expect(input.device).toMatchObject({
    id: 'press-07',
    zone: null,
    labels: {},
    cert: { serial: null, not_after: null },
  })
  expect(input.process?.observed).toMatchObject({
    sha256: 'aa',
    phase: null,
    others: [{ uid: 0, exe: null }],
  })
  expect(input.process?.expect).toBeNull()
  expect(input.grants[0]).toMatchObject({
    id: 'g_1',
    state: null,
    approvers: [],
    signers: [],
    ot_windows: [],
    ticket: null,
  })
})

test('the action is the point’s, whatever the caller gave', () => {
  expect(inputFor('admin.api', { action: 'session.open' }).action).toBe('admin.api')
})

test('every base input holds to the schema of its own point', () => {
  const schemas = pointSchemas()
  for (const point of POINT_NAMES) {
    expect(compile(schemas[point])(bases[point]), point).toBeUndefined()
    expect(prepare(point, bases[point], encodeInput(true)).ok, point).toBe(true)
  }
  expect(compile(schemas['session.open'])(emptyInput('session.open'))).toMatch(
    /^\.client: not object/,
  )
  expect(compile(schemas['session.open'])(bases['admin.api'])).toMatch(/^\.action/)
})

test('the default site data holds to its schema, and no key may be missing', async () => {
  const site = (await defaultSite()) as { settings: Record<string, unknown> }
  expect(compile(siteSchema)(site)).toBeUndefined()
  for (const key of Object.keys(site.settings)) {
    const { [key]: _, ...settings } = site.settings
    expect(compile(siteSchema)({ ...site, settings })).toBe(`.settings.${key}: absent`)
  }
})

test('every object of the input schema requires every key it names and admits no other', () => {
  const open: string[] = []
  const visit = (schema: Schema, at: string): void => {
    const names = Object.keys(schema.properties ?? {})
    if (
      names.length > 0 &&
      (schema.additionalProperties !== false ||
        names.some((name) => !schema.required?.includes(name)))
    )
      open.push(at)
    for (const [name, part] of Object.entries(schema.properties ?? {})) visit(part, `${at}.${name}`)
    if (schema.items !== undefined) visit(schema.items, `${at}[]`)
    if (typeof schema.additionalProperties === 'object')
      visit(schema.additionalProperties, `${at}{}`)
  }
  visit(inputSchema, '')
  visit(siteSchema, 'site')
  expect(open).toEqual([])
})

test('a schema keyword that is not understood is refused, not ignored', () => {
  expect(() => compile({ type: 'string', format: 'date' } as Schema)).toThrow(/format/)
})

describe('an address', () => {
  const rows: [string, string | null][] = [
    ['198.51.100.7', '198.51.100.7'],
    ['198.51.100.7:443', '198.51.100.7'],
    ['198.051.100.007', '198.51.100.7'],
    ['::ffff:198.51.100.7', '198.51.100.7'],
    ['::FFFF:C633:6407', '198.51.100.7'],
    ['0:0:0:0:0:ffff:198.51.100.7', '198.51.100.7'],
    ['[::ffff:198.51.100.7]:443', '198.51.100.7'],
    ['2001:DB8::1', '2001:db8::1'],
    ['2001:0db8:0000:0000:0001:0000:0000:0001', '2001:db8::1:0:0:1'],
    ['[2001:db8::1]:8443', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
    ['::198.51.100.7', '::c633:6407'],
    ['', null],
    ['host.example', null],
    ['256.1.1.1', null],
    ['1.2.3', null],
    ['1:2:3:4:5:6:7', null],
    ['1:2:3:4:5:6:7:8:9', null],
    ['1::2::3', null],
    ['12345::', null],
    ['::ffff:300.1.1.1', null],
    ['1:2:3:4:5:6:7:8::', null],
  ]
  test.for(rows)('%s', ([given, canonical]) => {
    expect(canonicalIp(given)).toBe(canonical)
  })

  test('in its one form stays as it is', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => {
        const once = canonicalIp(address)
        expect(once).not.toBeNull()
        expect(canonicalIp(once ?? '')).toBe(once)
      }),
    )
  })

  test('any text at all gives an address or null', () => {
    fc.assert(fc.property(fc.string(), (any) => void canonicalIp(any)))
  })
})

describe('a web request', () => {
  const rows: [string, string | null][] = [
    ['/', '/'],
    ['/a/b', '/a/b'],
    ['//a//b/', '/a/b'],
    ['/a/./b/../c', '/a/c'],
    ['/../../etc', '/etc'],
    ['/a%20b?q=/../x#y', '/a b'],
    ['/%61dmin', '/admin'],
    ['/%2561', '/%61'],
    ['/a%2fb', null],
    ['/a%2Fb', null],
    ['/a%5cb', null],
    ['/a\\b', null],
    ['/a%00', null],
    ['/%zz', null],
    ['/%ff', null],
    ['http://other/', null],
    ['*', null],
  ]
  test.for(rows)('%s', ([target, path]) => {
    expect(httpFacts('get', 'HMI--Press.Example:8443', target)?.path ?? null).toBe(path)
  })

  test('method upper, host lower and without port', () => {
    expect(httpFacts('get', 'HMI--Press.Example:8443', '/v/1')).toEqual({
      method: 'GET',
      host: 'hmi--press.example',
      path: '/v/1',
      segments: ['v', '1'],
    })
  })
})

test('authentication methods keep their meaning or are left out', () => {
  expect(authnMethods(['hwk', 'pwd', 'user', 'otp', 'fido', '__proto__', 'constructor'])).toEqual([
    'password',
    'totp',
    'webauthn',
  ])
})

test('every administrative operation has a name of two parts and is classed', async () => {
  const site = (await defaultSite()) as { roles: Record<string, Record<string, string>> }
  for (const [role, operations] of Object.entries(site.roles)) {
    for (const operation of Object.keys(operations)) {
      expect(Object.keys(ADMIN_OPERATIONS), role).toContain(operation)
      const { mutating } = adminCall(operation as keyof typeof ADMIN_OPERATIONS)
      if (role === 'auditor') expect(mutating, operation).toBe(false)
      if (role === 'vendor') expect(operations[operation]).toBe('own')
    }
  }
  // What was recorded is for auditors alone.
  const { 'recording:read': _read, ...others } = ADMIN_OPERATIONS
  expect(Object.keys(site.roles['admin'] ?? {}).toSorted()).toEqual(Object.keys(others).toSorted())
})
