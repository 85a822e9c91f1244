/** Service accounts: what they get a token for, what they may use of what they are, and how they end. */
import { createHash } from 'node:crypto'
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { importJWK, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Device, Grant, Me, OpenedSession, Problem, Service, Session } from '#api'
import { saveCredentials } from '../../../cli/login/index.ts'
import { makeKey } from '../../../cli/login/device.ts'
import { authorizedFetch } from '../../../cli/login/request.ts'
import { serviceFetch, type ServiceFile } from '../../../cli/login/service.ts'
import { isScope, scopeOf } from '../../../gateway/identity/services/scopes.ts'
import { run } from '../../cli/run.ts'
import {
  personWith,
  send,
  startNode,
  until,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { attach, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'

let node: TestNode
let operator: Person
let directory: string
beforeAll(async () => {
  node = await startNode()
  operator = await node.person('oda', { party: 'staff', roles: ['operator'] })
  directory = mkdtempSync(join(tmpdir(), 'sallyport-service-'))
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

const publicOf = ({ kty, crv, x, y }: ServiceFile['key']) => ({ kty, crv, x, y })

interface Made {
  readonly file: ServiceFile
  readonly service: Service
}
let made = 0

async function enter(change: Record<string, unknown> = {}): Promise<Made> {
  const key = await makeKey()
  const service = await node.admin.ask<Service>('POST', '/services', {
    name: `robot-${++made}`,
    roles: ['operator'],
    scopes: ['devices:read', 'grants:read'],
    key: publicOf(key),
    ...change,
  })
  const { origin: gateway, anchor } = node
  return { service, file: { v: 1, service: service.id, gateway, anchor, key } }
}

async function as({ file }: Made): Promise<Person> {
  await using fetch = await serviceFetch(file)
  return personWith(node, 'service', await fetch.refresh())
}

/** The token it has, shown as it is: no other is asked for. */
async function shown({ credentials: { key, accessToken } }: Person) {
  const path = '/api/v1/me'
  const proof = await new SignJWT({
    jti: crypto.randomUUID(),
    htm: 'GET',
    htu: node.origin + path,
    ath: createHash('sha256').update(accessToken).digest('base64url'),
  })
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: publicOf(key) })
    .setIssuedAt()
    .sign(await importJWK({ ...key }, 'ES256'))
  const headers = { authorization: `DPoP ${accessToken}`, dpop: proof }
  return await send<Problem>(node, { method: 'GET', path, headers })
}

/** A request for a token as a program makes it that is not ours. */
async function token(
  { file }: Pick<Made, 'file'>,
  bent: {
    readonly claims?: Record<string, unknown>
    readonly header?: Record<string, unknown>
    readonly key?: ServiceFile['key']
    readonly proof?: boolean
    readonly form?: Record<string, string>
    readonly assertion?: string
  } = {},
) {
  const now = Math.floor(Date.now() / 1000)
  const issuer = `${node.origin}/oidc`
  const sign = async (key: ServiceFile['key'], header: object, claims: object) =>
    new SignJWT({ iat: now, jti: crypto.randomUUID(), ...claims })
      .setProtectedHeader({ alg: 'ES256', ...header })
      .sign(await importJWK({ ...key }, 'ES256'))
  const own = { iss: file.service, sub: file.service, aud: issuer, exp: now + 60, ...bent.claims }
  const assertion = bent.assertion ?? (await sign(bent.key ?? file.key, bent.header ?? {}, own))
  const bound = await makeKey()
  const proof = await sign(
    bound,
    { typ: 'dpop+jwt', jwk: publicOf(bound) },
    { htm: 'POST', htu: `${issuer}/token` },
  )
  const form = new URLSearchParams({
    grant_type: 'client_credentials',
    scope: 'api',
    client_id: file.service,
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: assertion,
    ...bent.form,
  })
  const reply = await send<Record<string, string>>(node, {
    method: 'POST',
    path: '/oidc/token',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      ...(bent.proof === false ? {} : { dpop: proof }),
    },
    body: form.toString(),
  })
  return { assertion, status: reply.status, body: reply.body }
}

describe('a service', () => {
  test('is one: policy and the log see a program, by its own name', async () => {
    const entered = await enter()
    const from = node.size()
    await using robot = await as(entered)
    const me = await robot.ask<Me>('GET', '/me')
    expect(me).toMatchObject({
      id: `${node.origin}/oidc|${entered.service.id}`,
      email: `${entered.service.name}@service.invalid`,
      methods: ['swk'],
      roles: ['operator'],
    })
    const told = node.events(from).filter(({ code }) => code === 'auth.login')
    expect(told).toHaveLength(1)
    expect(told[0]?.text).toContain(entered.service.id)
    expect((await robot.call('GET', '/devices')).status).toBe(200)
    const { items } = await node.admin.ask<{ items: Service[] }>('GET', '/services')
    expect(items.find(({ id }) => id === entered.service.id)?.used_at).not.toBeNull()
  })

  test('has a token for ten minutes, bound to a key', async () => {
    const entered = await enter()
    const { status, body } = await token(entered)
    expect([status, body['token_type'], body['expires_in']]).toEqual([200, 'DPoP', 600])
    expect(body).not.toHaveProperty('refresh_token')
    for (const authorization of [
      `Bearer ${body['access_token']}`,
      `DPoP ${body['access_token']}`,
    ]) {
      const reply = await send(node, {
        method: 'GET',
        path: '/api/v1/me',
        headers: { authorization },
      })
      expect(reply.status).toBe(401)
    }
  })

  test('signs for the next token in the last minute of one, also for a call that is refused: a look each ten seconds keeps its session', async () => {
    const { file, service } = await enter({ scopes: ['devices:read'] })
    await using first = await serviceFetch(file)
    const given = await first.refresh()
    const until = () =>
      node
        .rows('SELECT row FROM service')
        .map(({ row }) => JSON.parse(String(row)) as { id: string; tokenUntil: number })
        .find(({ id }) => id === service.id)?.tokenUntil ?? 0
    const renewed: number[] = []
    const renew = async () => {
      await using next = await serviceFetch(file)
      renewed.push(until())
      return { ...(await next.refresh()), key: next.credentials().key }
    }
    const before = until()
    const looks = async (leftMs: number) => {
      await using look = authorizedFetch({ ...given, expiresAt: Date.now() + leftMs }, { renew })
      return (await look(`/api/v1/sessions/s_${'0'.repeat(26)}`)).status
    }
    expect(await looks(10 * 60_000)).toBe(403)
    expect(renewed).toEqual([])
    expect(await looks(59_000)).toBe(403)
    expect(renewed).toEqual([before])
    expect(until()).toBeGreaterThanOrEqual(before)
  })

  test('uses nothing that none of its scopes opens, whatever its roles are; that is recorded', async () => {
    await using robot = await as(await enter({ roles: ['admin'], scopes: ['devices:read'] }))
    const from = node.size()
    const calls: readonly (readonly [string, string, unknown?])[] = [
      ['POST', '/devices', { id: 'press-99' }],
      ['GET', '/accounts'],
      ['GET', '/audit/events'],
      ['POST', '/locks', { scope: 'everything', reason: 'x' }],
      ['GET', '/passkeys'],
      ['POST', '/step-up', {}],
      ['POST', '/services', { name: 'other', roles: ['admin'], scopes: ['devices:write'], key: publicOf(await makeKey()) }],
    ] // prettier-ignore
    for (const [method, path, body] of calls) {
      const reply = await robot.call<Problem>(method, path, body)
      expect([path, reply.status, reply.body.code]).toEqual([path, 403, 'service.scope'])
    }
    expect(node.events(from).filter(({ text }) => text.includes('"api:scope"'))).toHaveLength(
      calls.length,
    )
    expect((await robot.call<Device>('GET', '/devices')).status).toBe(200)
  })

  test('has no more than its roles, whatever its scopes are', async () => {
    await using robot = await as(await enter({ scopes: ['devices:write', 'policy:write'] }))
    const reply = await robot.call<Problem>('POST', '/devices', { id: 'press-98' })
    expect([reply.status, reply.body.code]).toEqual([403, 'admin.role_missing'])
  })

  test('approves nothing, and watches over no session', async () => {
    await using robot = await as(await enter({ scopes: ['grants:write', 'sessions:write'] }))
    const none = '0'.repeat(26)
    for (const [path, body] of [
      [`/grants/g_${none}/approve`, { hash: '0'.repeat(64) }],
      [`/sessions/s_${none}/supervise`, {}],
    ] as const) {
      const reply = await robot.call<Problem>('POST', path, body)
      expect([path, reply.status, reply.body.code]).toEqual([path, 403, 'service.scope'])
    }
  })
})

describe('no token for', () => {
  let entered: Made
  beforeAll(async () => {
    entered = await enter()
  })
  const bad = async (...args: Parameters<typeof token>) => {
    const { status, body } = await token(...args)
    return [status, body['error'], 'access_token' in body]
  }

  test('another key', async () => {
    expect(await bad(entered, { key: await makeKey() })).toEqual([401, 'invalid_client', false])
  })
  test('an assertion that was used', async () => {
    const { assertion, status } = await token(entered)
    expect(status).toBe(200)
    const [again] = await bad(entered, { assertion })
    expect([400, 401]).toContain(again)
  })
  test('one assertion ten times at once: one token', async () => {
    const other = await enter()
    const iat = Math.floor(Date.now() / 1000)
    const own = {
      iss: other.service.id,
      sub: other.service.id,
      aud: `${node.origin}/oidc`,
      exp: iat + 60,
    }
    const assertion = await new SignJWT({ ...own, iat, jti: 'once' })
      .setProtectedHeader({ alg: 'ES256' })
      .sign(await importJWK({ ...other.file.key }, 'ES256'))
    const all = await Promise.all(
      Array.from({ length: 10 }, async () => token(other, { assertion })),
    )
    expect(all.filter(({ status }) => status === 200)).toHaveLength(1)
  })
  test('an assertion for somebody else, or of yesterday', async () => {
    for (const claims of [
      { aud: 'https://elsewhere.example' },
      { exp: 1 },
      { sub: 'v_other' },
      { iss: 'x' },
      { exp: Math.floor(Date.now() / 1000) + 400 },
      { exp: Math.floor(Date.now() / 1000) + 400 * 86_400 },
      { jti: 'x'.repeat(201) },
    ])
      expect((await bad(entered, { claims })).slice(2)).toEqual([false])
  })
  test('an assertion of another algorithm', async () => {
    const [, claims = ''] = (await token(entered)).assertion.split('.')
    const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${claims}.`
    expect((await bad(entered, { assertion: none })).slice(1)).toEqual(['invalid_client', false])
    const text = JSON.stringify(publicOf(entered.file.key))
    const confused = await new SignJWT({ iss: entered.service.id, sub: entered.service.id })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(new TextEncoder().encode(text.padEnd(32, ' ')))
    expect((await bad(entered, { assertion: confused })).slice(1)).toEqual([
      'invalid_client',
      false,
    ])
  })
  test('who shows no key to bind it to', async () => {
    expect((await bad(entered, { proof: false })).slice(2)).toEqual([false])
  })
  test('another resource, or another way in', async () => {
    for (const form of [
      { resource: 'https://elsewhere.example' },
      { grant_type: 'refresh_token', refresh_token: 'x' },
      { grant_type: 'authorization_code', code: 'x' },
    ] as Record<string, string>[])
      expect((await bad(entered, { form }))[2]).toBe(false)
  })
  test('one whose time is over', async () => {
    const other = await enter({ stands_s: 3_600 })
    const text = String(
      node.rows('SELECT row FROM service WHERE id = ?', other.service.id)[0]?.['row'],
    )
    const over = JSON.stringify({ ...(JSON.parse(text) as object), expiresAt: 1 })
    await using robot = await as(other)
    node.change('UPDATE service SET row = ? WHERE id = ?', over, other.service.id)
    expect(await bad(other)).toEqual([401, 'invalid_client', false])
    expect((await shown(robot)).body.code).toBe('token.revoked')
  })
})

describe('revoked', () => {
  let agent: FakeAgent
  beforeAll(async () => {
    const device = await node.device('press-07', { plc: expecting() })
    agent = await attach(node, device, { listeners: { plc: seen(PLC, 'listener') } })
  })
  afterAll(async () => agent[Symbol.asyncDispose]())

  test('it gets no token, its token is worth nothing, and its session is cut at once', async () => {
    const entered = await enter({
      roles: ['vendor'],
      vendor: 'acme',
      scopes: ['grants:write', 'sessions:write', 'sessions:read'],
    })
    await using robot = await as(entered)
    const asked = await robot.ask<Grant>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 600,
      reason: 'nightly backup',
    })
    await operator.ask('POST', `/grants/${asked.id}/approve`, { hash: asked.hash })
    const session = await robot.ask<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    const from = node.size()
    await node.admin.ask('POST', `/services/${entered.service.id}/revoke`, {})
    const now = async () => operator.ask<Session>('GET', `/sessions/${session.id}`)
    await until('the session to be cut', async () => (await now()).ended_at !== null)
    expect(node.events(from).map(({ code }) => code)).toContain('session.end')
    expect((await shown(robot)).body.code).toBe('token.revoked')
    expect((await token(entered)).status).toBe(401)
    await expect(as(entered)).rejects.toMatchObject({ code: 'service.refused' })
  })

  test('twice at once it is revoked once, and the log counts one', async () => {
    const { service } = await enter()
    const from = node.size()
    const path = `/services/${service.id}/revoke`
    const [a, b] = await Promise.all([
      node.admin.call('POST', path, {}),
      node.admin.call('POST', path, {}),
    ])
    expect([a.status, b.status]).toEqual(expect.arrayContaining([200, 409]))
    const told = node
      .events(from)
      .filter(({ message }) => /^(without effect: )?service revoked/.test(message))
    const effect = told.filter(({ message }) => !message.startsWith('without'))
    expect(effect.length - (told.length - effect.length)).toBe(1)
  })
})

describe('is not entered', () => {
  const asked = async (change: Record<string, unknown>) =>
    node.admin.call<Problem>('POST', '/services', {
      name: `robot-${++made}`,
      roles: ['operator'],
      scopes: ['devices:read'],
      key: publicOf(await makeKey()),
      ...change,
    })
  test('with a private key, a key on no curve, or another kind of key', async () => {
    const key = await makeKey()
    const off = { ...publicOf(key), y: publicOf(await makeKey()).y }
    for (const bad of [key, { ...publicOf(key), crv: 'P-384' }, { kty: 'oct', k: 'x' }, off])
      expect((await asked({ key: bad })).status).toBe(400)
  })
  test('with a scope that is none, or only people’s', async () => {
    for (const scope of [
      'devices',
      'devices:all',
      'everything:read',
      'passkeys:read',
      'accounts:write',
      'services:write',
    ])
      expect([scope, (await asked({ scopes: [scope] })).status]).toEqual([scope, 400])
  })
  test('with a role that its party has not, or for ever', async () => {
    expect((await asked({ roles: ['admin'], vendor: 'acme' })).status).toBe(400)
    expect((await asked({ stands_s: 31_622_401 })).status).toBe(400)
  })
  test('twice under a name, or with a key, also at once', async () => {
    const key = publicOf(await makeKey())
    const all = await Promise.all([1, 2, 3].map(async () => asked({ name: 'nightly', key })))
    expect(all.filter(({ status }) => status === 201)).toHaveLength(1)
    expect(all.filter(({ status }) => status === 409)).toHaveLength(2)
    expect((await asked({ key })).status).toBe(409)
  })
  test('by anybody but an administrator', async () => {
    const reply = await operator.call<Problem>('POST', '/services', {
      name: 'mine', roles: ['operator'], scopes: ['devices:read'], key: publicOf(await makeKey()),
    }) // prettier-ignore
    expect([reply.status, reply.body.code]).toEqual([403, 'admin.role_missing'])
  })
})

test('every call is opened by one scope, by none, or is everybody’s', async () => {
  const { body } = await send<{ paths: Record<string, Record<string, unknown>> }>(node, {
    method: 'GET',
    path: '/api/v1/openapi.json',
  })
  const routes = Object.entries(body.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(
      (one) => `${one.toUpperCase()} ${path.replaceAll(/\{([a-z]+)\}/g, ':$1')}`,
    ),
  )
  const open = routes.filter((route) => scopeOf(route) === null)
  expect(open.toSorted()).toEqual([
    'GET /api/v1/audit/head',
    'GET /api/v1/me',
    'POST /api/v1/audit/head',
  ])
  const closed = routes
    .filter((route) => scopeOf(route) === undefined)
    .map((route) => route.split('/')[3])
  const persons = [
    'accounts', 'approvers', 'auditors', 'bootstrap', 'break-glass', 'ceremonies', 'grants', 'head', 'idps', 'info', 'invitations',
    'passkeys', 'services', 'sessions', 'step-up', 'totp',
  ] // prettier-ignore
  expect(closed.filter((area = '') => !persons.includes(area))).toEqual([])
  expect(closed).toEqual(
    expect.arrayContaining(['passkeys', 'step-up', 'ceremonies', 'services', 'accounts']),
  )
  for (const route of routes) expect(isScope(scopeOf(route) ?? 'devices:read')).toBe(true)
})

describe('the command line', () => {
  test('makes the file, and runs in its name; the secret is on no command line and in no store', async () => {
    const home = join(directory, 'home')
    await saveCredentials(join(home, 'credentials'), node.admin.credentials)
    const out = join(directory, 'robot.json')
    const args = [
      'service',
      'add',
      'ci',
      '--role',
      'operator',
      '--scope',
      'devices:read',
      '--out',
      out,
    ]
    const added = await run(home, ...args)
    expect([added.err.includes('SALLYPORT_SERVICE='), added.code]).toEqual([true, 0])
    expect(statSync(out).mode & 0o777).toBe(0o600)
    const { key } = JSON.parse(readFileSync(out, 'utf8')) as ServiceFile
    expect(added.out + added.err).not.toContain(key.d)
    expect(JSON.stringify(node.rows('SELECT row FROM service'))).not.toContain(key.d)

    process.env['SALLYPORT_SERVICE'] = out
    try {
      const nobody = join(directory, 'nobody')
      const listed = await run(nobody, 'device', 'list', '--json')
      expect([listed.code, listed.err]).toEqual([0, ''])
      const denied = await run(nobody, 'grants')
      expect([denied.code, denied.err.includes('service.scope')]).toEqual([3, true])
      chmodSync(out, 0o644)
      const open = await run(nobody, 'device', 'list')
      expect([open.code, open.err.includes('service.file')]).toEqual([4, true])
    } finally {
      delete process.env['SALLYPORT_SERVICE']
    }
  })
  test('enters none whose file it cannot write', async () => {
    const home = join(directory, 'home')
    const args = ['service', 'add', 'lost', '--role', 'operator', '--scope', 'devices:read']
    const ran = await run(home, ...args, '--out', join(directory, 'no', 'such', 'place'))
    expect([ran.code, ran.err.includes('service.file')]).toEqual([4, true])
    const { items } = await node.admin.ask<{ items: Service[] }>('GET', '/services')
    expect(items.find(({ name }) => name === 'lost')?.state).toBe('revoked')
  })
})
