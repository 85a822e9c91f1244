/** Two gateways behind one address, on one Redis: what one of them does to a person holds at the other. */
import { createHash, randomUUID } from 'node:crypto'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { importJWK, SignJWT, type JWTPayload } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Device, Locked, MadeInvitation, ReplacedDevice, Service } from '#api'
import { createCsr, enrollRequest, readCertificates } from '#est'
import { makeKey } from '../../../cli/login/device.ts'
import { serviceFetch } from '../../../cli/login/service.ts'
import { approveDevice, openBrowser } from '../../support/browser.ts'
import {
  newKey,
  PASSWORD,
  personWith,
  send,
  soon,
  startNode,
  TENANT,
  until,
  type Answer,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { attach } from '../../support/tunnels.ts'
import { openLink } from '../identity/guest.ts'
import { turnedAway } from '../revocation/dialling.ts'
import { carried, here, isCut, twoDevices } from '../sessions/carried.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

let server: RedisServer
/** The second one: what people dial is the first one's address, and a balancer would hand it on. */
let other: TestNode
let data: string
const settings = () => `store: { redis: { host: 127.0.0.1, port: ${server.port} } }\n`

/** A proof of this key for one request. */
async function proofOf(key: Person['credentials']['key'], claims: JWTPayload): Promise<string> {
  const { d: _, ...shown } = key
  const own = { jti: randomUUID(), iat: Math.floor(Date.now() / 1000) }
  return await new SignJWT({ ...own, ...claims })
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: shown })
    .sign(await importJWK({ ...key }, 'ES256'))
}

/** A call under `/api/v1` as this person's program makes it: a token, and a proof for this very call. */
async function callOf(
  { credentials: { accessToken, key } }: Pick<Person, 'credentials'>,
  method: string,
  path: string,
  body: object = {},
) {
  const dpop = await proofOf(key, {
    htm: method,
    htu: `${here.node.origin}/api/v1${path}`,
    ath: createHash('sha256').update(accessToken).digest('base64url'),
  })
  const { host } = new URL(here.node.origin)
  const headers = { host, authorization: `DPoP ${accessToken}`, dpop }
  const plain = { method, path: `/api/v1${path}`, headers }
  return method === 'GET' ? plain : { ...plain, body }
}

/** The same call at the second gateway. */
async function there<T>(
  who: Person,
  method: string,
  path: string,
  body?: object,
): Promise<Answer<T>> {
  return await send<T>(other, await callOf(who, method, path, body))
}

const codeOf = ({ status, text }: Answer) => [status, /"code":"([^"]+)"/.exec(text)?.[1] ?? 'none']

describe.skipIf(!haveRedis)('two gateways that share people', () => {
  twoDevices(async () => {
    server = await RedisServer.start()
    return { config: settings() }
  })
  beforeAll(async () => {
    data = mkdtempSync(join(tmpdir(), 'sallyport-second-'))
    cpSync(join(here.node.data, 'identity'), join(data, 'identity'), { recursive: true })
    const config = `gateway: gw2\npublic_port: ${here.node.port}\n${settings()}`
    other = await startNode({ bare: true, data, config })
  })
  afterAll(async () => {
    await other[Symbol.asyncDispose]()
    rmSync(data, { recursive: true })
    await server[Symbol.asyncDispose]()
  })

  test('take the tokens of each other, and each proof once between them', async () => {
    const asked = await callOf(here.operator, 'GET', '/grants')
    expect((await send(other, asked)).status).toBe(200)
    for (const node of [here.node, other])
      expect(codeOf(await send(node, asked))).toEqual([401, 'proof.replayed'])
  })

  test('finish at either the sign-in that was begun at the other, and give tokens for its code once', async () => {
    const { key } = here.operator.credentials
    const resource = `${here.node.origin}/api`
    const post = async <T>(node: TestNode, path: string, fields: Record<string, string>) => {
      const headers = {
        host: new URL(here.node.origin).host,
        'content-type': 'application/x-www-form-urlencoded',
        dpop: await proofOf(key, { htm: 'POST', htu: `${here.node.origin}${path}` }),
      }
      const body = new URLSearchParams({ client_id: 'sallyport-cli', resource, ...fields })
      return await send<T>(node, { method: 'POST', path, headers, body: body.toString() })
    }
    const scope = 'openid offline_access'
    const { body } = await post<Record<string, string>>(other, '/oidc/device/auth', { scope })
    await using browser = openBrowser(here.node.anchor)
    const url = body['verification_uri_complete'] ?? ''
    const page = await approveDevice(browser, {
      url,
      email: here.operator.email,
      password: PASSWORD,
    })
    expect(page.status).toBe(200)
    const code = {
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      device_code: body['device_code'] ?? '',
    }
    const given = await post<Record<string, string>>(other, '/oidc/token', code)
    const accessToken = given.body['access_token'] ?? ''
    const credentials = { ...here.operator.credentials, accessToken }
    const asked = await callOf({ credentials }, 'GET', '/grants')
    expect((await send(here.node, asked)).status).toBe(200)
    const again = await post<Record<string, string>>(here.node, '/oidc/token', code)
    expect([again.status, again.body['error']]).toEqual([400, 'invalid_grant'])
  })

  test('keep nobody in a file, and none of their secrets in the log of either', async () => {
    expect(here.node.rows('SELECT sub FROM account UNION SELECT login FROM login')).toEqual([])
    expect(here.node.rows('SELECT id FROM oidc UNION SELECT sub FROM passkey')).toEqual([])
    expect(other.rows('SELECT sub FROM account UNION SELECT id FROM oidc')).toEqual([])
    const { accessToken, refreshToken } = here.vendor.credentials
    const log = here.node.events().map(({ text }) => text)
    expect(log.filter((text) => [accessToken, refreshToken].some((t) => text.includes(t)))).toEqual(
      [],
    )
    expect(() => readFileSync(join(data, 'bootstrap-token'))).toThrow('ENOENT')
  })

  test('let in at the first whoever was made at the second', async () => {
    const email = 'nina@plant.example'
    const made = { email, name: 'Nina', party: 'staff', roles: ['operator'], password: PASSWORD }
    expect((await there(here.node.admin, 'POST', '/accounts', made)).status).toBe(201)
    const nina = await here.node.signIn(email)
    expect((await nina.call('GET', '/grants')).status).toBe(200)
    const twice = await here.node.admin.call('POST', '/accounts', made)
    expect(codeOf(twice)).toEqual([409, 'account.exists'])
  })

  test('cut what somebody has open at the first who is disabled at the second, and let them in nowhere from then on', async () => {
    const one = await carried()
    const { subject } = here.vendor.credentials
    const disabled = await there(here.node.admin, 'POST', `/accounts/${subject}/disable`)
    expect(disabled.status).toBe(200)
    for (const node of [here.node, other]) {
      const asked = await callOf(here.vendor, 'GET', '/grants')
      expect(codeOf(await send(node, asked))).toEqual([401, 'account.disabled'])
    }
    await isCut(one, /./, 'policy_recheck')
    expect((await here.node.admin.call('POST', `/accounts/${subject}/enable`, {})).status).toBe(200)
    // The login went with it.
    const asked = await callOf(here.vendor, 'GET', '/grants')
    expect(codeOf(await send(here.node, asked))).toEqual([401, 'token.revoked'])
    here.vendor = await here.node.signIn(here.vendor.email)
  })

  test('lock a person at the second out of the first, and of two administrators one stays, however both go about it', async () => {
    const lock = { scope: 'identity', target: here.vendor.email, reason: 'incident 7' }
    const put = await there<Locked>(here.node.admin, 'POST', '/locks', lock)
    expect(put.status).toBe(201)
    await until('it is out here', async () => {
      const asked = await here.vendor.call('POST', '/sessions', {
        device: 'press-07',
        process: 'plc',
      })
      return asked.text.includes('"lock.active"')
    })
    const { id } = put.body.lock
    await here.node.admin.ask('POST', `/locks/${id}/lift`, { reason: 'over' })
    const last = here.node.admin.credentials.subject
    for (const answer of [
      await there(here.node.admin, 'POST', `/accounts/${last}/disable`),
      await here.node.admin.call('POST', `/accounts/${last}/disable`, {}),
    ])
      expect(answer.text).toContain('last_admin')
  })

  test('let nobody in any more who calls in the name of a service that the second revoked, with a token of the first', async () => {
    const key = await makeKey()
    const { kty, crv, x, y } = key
    const { id: service } = await here.node.admin.ask<Service>('POST', '/services', {
      name: 'robot',
      roles: ['operator'],
      scopes: ['devices:read'],
      key: { kty, crv, x, y },
    })
    const { origin: gateway, anchor } = here.node
    await using fetch = await serviceFetch({ v: 1, service, gateway, anchor, key })
    await using robot = personWith(here.node, 'robot', await fetch.refresh())
    const asked = async (node: TestNode) =>
      codeOf(await send(node, await callOf(robot, 'GET', '/devices')))
    for (const node of [here.node, other]) expect(await asked(node)).toEqual([200, 'none'])
    const revoked = await there(here.node.admin, 'POST', `/services/${service}/revoke`)
    expect(revoked.status).toBe(200)
    for (const node of [here.node, other]) expect(await asked(node)).toEqual([401, 'token.revoked'])
    await expect(fetch.refresh()).rejects.toThrow()
  })

  test('let the old machine back in nowhere when one of them gives its identity to another, by a certificate of its own', async () => {
    const id = 'stolen-01'
    const old = await here.node.device(id)
    await using carries = await attach(here.node, old)
    const path = `/devices/${id}/replace`
    const asked = await there<ReplacedDevice>(here.node.admin, 'POST', path, { reason: 'stolen' })
    expect([asked.status, asked.body.revocation.serials]).toEqual([201, []])
    expect((await soon('its tunnel ends', carries.tunnel.closed)).code).toBe('peer.revoked')
    const key = newKey()
    const csr = createCsr(key, { deviceId: id, tenant: TENANT })
    const given = await send(other, enrollRequest({ csr, token: asked.body.token.token }))
    const headers = Object.fromEntries(given.headers)
    const read = readCertificates({ status: given.status, headers, body: given.text })
    const chain = read.kind === 'certificates' ? read.certificates : []
    await using next = await attach(other, { key, chain })
    expect(next.welcome['device']).toBe(id)
    const now = await until('it is not here any more', async () => {
      const seen = await here.node.admin.ask<Device>('GET', `/devices/${id}`)
      return seen.connected ? undefined : seen
    })
    expect([now.state, now.certificate]).toEqual(['active', null])
    expect(await turnedAway(here.node, old)).toBe('peer.revoked')
    await expect(here.node.renew(old)).rejects.toThrow()
    // Whoever hears of its own act ends nothing a second time: the new machine stays.
    const shown = await there<Device>(here.node.admin, 'GET', `/devices/${id}`)
    expect(shown.body.connected).toBe(true)
    const revoked = await here.node.admin.call('POST', `/devices/${id}/revoke`, {
      reason: 'keyCompromise',
    })
    expect(revoked.status).toBe(200)
    expect((await soon('the new one ends too', next.tunnel.closed)).code).toBe('peer.revoked')
  })

  test('open at the first, once, a link that the second made', async () => {
    const email = 'gil@acme.example'
    const invited = { name: 'Gil Guest', vendor: 'acme', email }
    const made = await there<MadeInvitation>(here.node.admin, 'POST', '/invitations', invited)
    expect(made.status).toBe(201)
    const again = await here.node.admin.call('POST', '/invitations', invited)
    expect(codeOf(again)).toEqual([409, 'account.exists'])
    const secret = made.body.url.slice(made.body.url.indexOf('#') + 1)
    await using browser = openBrowser(here.node.anchor)
    const page = await openLink(here.node, browser, secret)
    const chosen = { password: PASSWORD, again: PASSWORD }
    expect((await browser.submit(page, 'Set this password', chosen)).status).toBe(200)
    await using another = openBrowser(here.node.anchor)
    const past = await openLink(here.node, another, secret)
    expect(past.text).toContain('<code>invitation.used</code>')
    const listed = await there(here.node.admin, 'GET', '/invitations')
    expect(listed.text).toContain('"used"')
    const gil = await here.node.signIn(email)
    expect((await there(gil, 'GET', '/grants')).status).toBe(200)
  })
})
