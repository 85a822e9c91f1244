/**
 * Revocation as the plant meets it: tunnels and sessions that are open end within a second, nothing
 * brings them back, and whoever asks for lists or by OCSP is told.
 */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { request as httpsRequest } from 'node:https'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type {
  Certificate,
  Device,
  DeviceToken,
  ReplacedDevice,
  Revocation,
  RevocationList,
  RevokedDevice,
} from '#api'
import { createCsr, enrollRequest, readCertificates } from '#est'
import { ALPN, driveTunnel } from '#tunnel'
import { openssl, type Openssl } from '../ca/openssl.ts'
import {
  dial,
  grantFor,
  newKey,
  openSession,
  presenting,
  send,
  soon,
  startNode,
  TENANT,
  toNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../support/node.ts'
import {
  attach,
  Client,
  dialDevice,
  expecting,
  hello,
  PLC,
  refusalOf,
  seen,
} from '../support/tunnels.ts'

let node: TestNode
let ssl: Openssl
let vendor: Person
/** What the node does each hour; nobody waits for one. */
const hourly: (() => void)[] = []
beforeAll(async () => {
  const every = setInterval
  const spy = vi.spyOn(globalThis, 'setInterval').mockImplementation((work, ms, ...rest) => {
    if (ms === 3_600_000) hourly.push(work as () => void)
    return every(work, ms, ...rest)
  })
  node = await startNode()
  spy.mockRestore()
  ssl = openssl()
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'pressmaker' })
})
afterAll(async () => {
  ssl[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

const serialOf = (device: DeviceIdentity) =>
  new X509Certificate(device.chain[0] ?? '').serialNumber.toLowerCase()
const listening = { listeners: { plc: seen(PLC, 'listener') } }
const encode = (value: unknown) => Buffer.from(JSON.stringify(value))

/** What the gateway says to a device that dials again. */
async function turnedAway(device: DeviceIdentity): Promise<string> {
  const tunnel = await dialDevice(node, device)
  tunnel.open('control', encode(hello())).catch(() => {})
  return (await soon('the gateway ends the tunnel', tunnel.closed)).code
}

/** A device with a tunnel, and a vendor whose bytes flow through it. */
async function busy(id: string) {
  const device = await node.device(id, { plc: expecting() })
  const agent = await attach(node, device, listening)
  await grantFor(vendor, node.admin, { device: id, process: 'plc' })
  const session = await openSession(vendor, id, 'plc')
  const client = await Client.dial(node)
  onTestFinished(() => client[Symbol.asyncDispose]())
  const line = await client.line(session)
  line.write('before')
  await line.until('the echo', ({ text }) => text === 'before')
  return { device, agent, session, client, line }
}

interface Way {
  readonly name: string
  readonly state: string
  readonly by: (device: DeviceIdentity) => Promise<Revocation>
}
const ways: readonly Way[] = [
  {
    name: 'decommissioned',
    state: 'retired',
    by: async ({ id }) =>
      (
        await node.admin.ask<RevokedDevice>('POST', `/devices/${id}/decommission`, {
          reason: 'scrap',
        })
      ).revocation,
  },
  {
    name: 'replaced',
    state: 'pending',
    by: async ({ id }) =>
      (await node.admin.ask<ReplacedDevice>('POST', `/devices/${id}/replace`, { reason: 'burnt' }))
        .revocation,
  },
  {
    name: 'revoked by device',
    state: 'revoked',
    by: async ({ id }) =>
      (
        await node.admin.ask<RevokedDevice>('POST', `/devices/${id}/revoke`, {
          reason: 'keyCompromise',
        })
      ).revocation,
  },
  {
    name: 'revoked by serial',
    state: 'active',
    by: async (device) =>
      await node.admin.ask<Revocation>('POST', `/certificates/${serialOf(device)}/revoke`, {
        reason: 'keyCompromise',
        comment: 'the key was seen',
      }),
  },
]

describe('a device that is', () => {
  test.for(ways)('$name: tunnel and session end within a second', async ({ name, by, state }) => {
    const id = `cut-${name.replaceAll(' ', '-').slice(-12)}`
    const { device, agent, session, line, client } = await busy(id)
    const from = node.size()
    const revocation = await by(device)
    expect((await soon('the tunnel ends', agent.tunnel.closed)).code).toBe('peer.revoked')
    expect((await line.gone()).code).toBe('peer.revoked')
    expect(revocation.serials).toEqual([serialOf(device)])
    expect(revocation.tunnels).toBe(1)
    expect(revocation.sessions.map((one) => one.id)).toEqual([session.id])
    expect(revocation.time_to_cut_ms).toBeGreaterThan(0)
    expect(line.text).toBe('before')

    // In the log: asked, revoked before it was done, then what ended, with how long it took.
    const events = await until('the end is in the log', () => {
      const found = node.events(from)
      return found.some(({ code }) => code === 'tunnel.down') ? found : undefined
    })
    const codes = events.map(({ code }) => code)
    expect(codes).toContain('admin.call')
    expect(codes.indexOf('cert.revoke')).toBeGreaterThan(codes.indexOf('admin.call'))
    expect(codes.indexOf('session.end')).toBeGreaterThan(codes.indexOf('cert.revoke'))
    const end = events.find(({ code }) => code === 'session.end')
    expect(end?.text).toContain('"cert_revoked"')
    const down = events.find(({ code }) => code === 'tunnel.down')
    expect(down?.text).toContain('"peer.revoked"')
    expect(down?.text).toMatch(/"time_to_cut_ms":\d+[,}]/)

    // And nothing brings it back.
    const after = await node.admin.ask<Device>('GET', `/devices/${id}`)
    expect([after.state, after.connected, after.certificate]).toEqual([state, false, null])
    expect(await turnedAway(device)).toBe('peer.revoked')
    expect((await refusalOf(client.stream(session))).code).toBe('session.proof')
    await expect(node.renew(device)).rejects.toThrow()
    expect((await node.health()).sessions).toBe(0)
  })

  test('twenty at once: every one ends', async () => {
    const devices: DeviceIdentity[] = []
    for (let n = 0; n < 20; n++) devices.push(await node.device(`row-${n}`))
    const agents = await Promise.all(devices.map((device) => attach(node, device)))
    await Promise.all(
      devices.map(async (device, at) => {
        const cut = await node.admin.ask<RevokedDevice>('POST', `/devices/${device.id}/revoke`, {
          reason: 'superseded',
        })
        await soon('it ends', agents[at]?.tunnel.closed ?? Promise.reject(new Error('no agent')))
        expect(cut.revocation.tunnels).toBe(1)
      }),
    )
  })
})

test('a revocation that a fault left intended is carried out within the hour, and cuts like any other', async () => {
  const { device, agent, line, session } = await busy('late-01')
  const serial = serialOf(device)
  node.change(
    'INSERT INTO ca_revocation_intent (tenant, at, reason, target) VALUES (?, ?, ?, ?)',
    TENANT,
    Date.now(),
    'superseded',
    JSON.stringify({ serial }),
  )
  const from = node.size()
  for (const work of hourly) work()
  expect((await soon('the tunnel ends', agent.tunnel.closed)).code).toBe('peer.revoked')
  expect((await line.gone()).code).toBe('peer.revoked')
  const end = await until('the end is in the log', () =>
    node.events(from).find(({ code, text }) => code === 'session.end' && text.includes(session.id)),
  )
  expect(end.text).toContain('"cert_revoked"')
  expect(await turnedAway(device)).toBe('peer.revoked')
})

describe('a peer that does not listen', () => {
  test('loses its socket all the same', async () => {
    const device = await node.device('deaf-01')
    // It neither reads nor closes: GOAWAY and FIN stay where they are.
    const raw = await muted(device)
    const { revocation } = await node.admin.ask<RevokedDevice>('POST', '/devices/deaf-01/revoke', {
      reason: 'keyCompromise',
    })
    expect(revocation.tunnels).toBe(1)
    expect(revocation.time_to_cut_ms).toBeGreaterThan(150)
    raw.resume()
    await soon('its socket is gone', once(raw, 'close'))
  })
})

/** A tunnel whose socket stops reading once it is admitted. */
async function muted(device: DeviceIdentity): Promise<TLSSocket> {
  const socket = await dial(node, { ...presenting(device), ALPNProtocols: [ALPN] })
  socket.on('error', () => {})
  const tunnel = await driveTunnel(socket, {
    role: 'agent',
    side: 'dialler',
    instance: 'deaf',
    epoch: 99,
    plainReads: true,
  })
  await tunnel.open('control', encode(hello()))
  socket.pause()
  return socket
}

describe('TLS resumption', () => {
  test.for(['TLSv1.2', 'TLSv1.3'] as const)('%s: there is nothing to resume', async (version) => {
    const device = await node.device(`resume-${version.at(-1)}`)
    const offered: Buffer[] = []
    const options = {
      ...presenting(device),
      minVersion: version,
      maxVersion: version,
      ALPNProtocols: [ALPN],
    }
    const first = await dial(node, options)
    first.on('session', (session: Buffer) => offered.push(session))
    const kept = first.getSession()
    if (kept !== undefined) offered.push(kept)
    // In 1.3 it comes behind the handshake.
    const before = version === 'TLSv1.3' ? offered.length : -1
    await until('a session is offered', () => offered.length > before)
    expect(first.isSessionReused()).toBe(false)
    // In 1.3 OpenSSL still sends the 32 octets of a name, in a cache that is not there.
    expect(first.getTLSTicket()?.length ?? 32).toBe(32)
    expect(offered).not.toEqual([])
    first.destroy()
    await node.admin.ask('POST', `/devices/${device.id}/revoke`, { reason: 'keyCompromise' })
    // Whatever the client holds, presented again: a full handshake, in which the identity is shown anew.
    for (const session of offered) {
      const again = connectTls({ ...toNode(node), ...options, session })
      again.on('error', () => {})
      await soon('the handshake', once(again, 'secureConnect'))
      expect(again.isSessionReused()).toBe(false)
      again.destroy()
      // Without its key there is no identity to bring along.
      const { key: _key, cert: _cert, ...bare } = options
      const nobody = connectTls({ ...toNode(node), ...bare, session })
      await soon('the handshake', once(nobody, 'secureConnect'))
      expect(nobody.isSessionReused()).toBe(false)
      nobody.destroy()
    }
    expect(await turnedAway(device)).toBe('peer.revoked')
  })
})

describe('a revocation that races the admission', () => {
  test('the tunnel ends, whichever came first', async () => {
    for (let turn = 0; turn < 12; turn++) {
      const device = await node.device(`race-${turn}`)
      const tunnel = await dialDevice(node, device)
      tunnel.open('control', encode(hello())).catch(() => {})
      for (let n = 0; n < turn; n++) await new Promise((resolve) => setImmediate(resolve))
      await node.admin.ask('POST', `/certificates/${serialOf(device)}/revoke`, {
        reason: 'keyCompromise',
      })
      expect((await soon('the tunnel ends', tunnel.closed)).code).toBe('peer.revoked')
    }
    await until('nobody is left behind', async () => (await node.health()).devices === 0)
  })

  test('revoked beside the gateway: the next stream finds out, and the tunnel ends', async () => {
    const { agent, device, client, session } = await busy('beside-01')
    node.change(`UPDATE ca_certificate SET state = 'revoked' WHERE serial = ?`, serialOf(device))
    const { told } = await refusalOf(client.stream(session))
    expect(told?.code).toBe('peer.revoked')
    expect((await soon('the tunnel ends', agent.tunnel.closed)).code).toBe('peer.revoked')
  })
})

describe('replace', () => {
  test('the same id, another machine, by a new token', async () => {
    const old = await node.device('swap-01', { plc: expecting() })
    const { device, token } = await node.admin.ask<ReplacedDevice>(
      'POST',
      '/devices/swap-01/replace',
      {
        reason: 'board failed',
      },
    )
    expect([device.id, device.state, device.processes.length]).toEqual(['swap-01', 'pending', 1])
    const next = await enrol('swap-01', token)
    await using agent = await attach(node, next)
    expect(agent.welcome['device']).toBe('swap-01')
    expect((await node.admin.ask<Device>('GET', '/devices/swap-01')).state).toBe('active')
    expect(await turnedAway(old)).toBe('peer.revoked')
  })

  test('a token from before is worth nothing', async () => {
    const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
      id: 'swap-02',
    })
    await node.admin.ask('POST', '/devices/swap-02/replace', { reason: 'lost the note' })
    await expect(enrol('swap-02', token)).rejects.toThrow('401')
  })

  const refused = [
    { from: 'retired', next: 'sallyport device add' },
    { from: 'quarantined', next: 'sallyport device resume' },
  ]
  test.for(refused)('a device that is $from is not replaced', async ({ from, next }) => {
    const id = `stay-${from}`
    const device = await node.device(id)
    if (from === 'retired') node.change(`UPDATE device SET state = 'retired' WHERE id = ?`, id)
    else await node.admin.ask('POST', `/devices/${id}/quarantine`, { reason: 'odd' })
    const { status, body } = await node.admin.call('POST', `/devices/${id}/replace`, {
      reason: 'x',
    })
    expect([status, body.code]).toEqual([409, 'device.state'])
    expect(body.next_step).toContain(next)
    expect(
      node.rows('SELECT state FROM ca_certificate WHERE serial = ?', serialOf(device)),
    ).toEqual([{ state: 'active' }])
  })

  test('revoking a quarantined device does not lift the quarantine', async () => {
    await node.device('held-01')
    await node.admin.ask('POST', '/devices/held-01/quarantine', { reason: 'odd' })
    const revoked = await node.admin.ask<RevokedDevice>('POST', '/devices/held-01/revoke', {
      reason: 'keyCompromise',
    })
    expect([revoked.device.state, revoked.revocation.serials.length]).toEqual(['quarantined', 1])
  })
})

async function enrol(id: string, { token }: DeviceToken): Promise<DeviceIdentity> {
  const key = newKey()
  const csr = createCsr(key, { deviceId: id, tenant: TENANT })
  const answer = await send(node, enrollRequest({ csr, token }))
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`)
  const headers = Object.fromEntries(answer.headers)
  const read = readCertificates({ status: answer.status, headers, body: answer.text })
  if (read.kind !== 'certificates') throw new Error('no certificate')
  return { id, key, chain: read.certificates }
}

describe('decommission', () => {
  test('again changes nothing and fails nothing', async () => {
    await node.device('twice-01')
    const path = '/devices/twice-01/decommission'
    const first = await node.admin.ask<RevokedDevice>('POST', path, { reason: 'scrap' })
    const second = await node.admin.ask<RevokedDevice>('POST', path, { reason: 'scrap' })
    expect(first.revocation.serials).toHaveLength(1)
    expect([second.device.state, second.revocation.serials]).toEqual(['retired', []])
    expect((await node.admin.call('POST', '/devices/twice-01/token')).status).toBe(409)
  })

  test('no next step sends anybody from a retired id to one that is refused as well', async () => {
    await node.device('gone-01')
    await node.admin.ask('POST', '/devices/gone-01/decommission', { reason: 'scrap' })
    const calls = [
      ['/devices/gone-01/token', {}, 'device.state'],
      ['/devices/gone-01/replace', { reason: 'x' }, 'device.state'],
      ['/devices', { id: 'gone-01' }, 'device.exists'],
    ] as const
    for (const [path, body, code] of calls) {
      const refused = await node.admin.call('POST', path, body)
      expect([refused.status, refused.body.code]).toEqual([409, code])
      expect(refused.body.next_step).toContain('under an id of its own')
    }
  })

  test('its event says who, why and what ended', async () => {
    const device = await node.device('told-01')
    await using agent = await attach(node, device)
    const from = node.size()
    await node.admin.ask('POST', '/devices/told-01/decommission', { reason: 'sold to Lyon' })
    const event = node.events(from).find(({ code }) => code === 'device.retire')
    for (const text of ['sold to Lyon', node.admin.email, serialOf(device), 'time_to_cut_ms'])
      expect(event?.text).toContain(text)
    await agent.tunnel.closed
  })
})

describe('who may', () => {
  const calls = [
    ['POST', '/devices/guard-01/decommission', { reason: 'x' }],
    ['POST', '/devices/guard-01/replace', { reason: 'x' }],
    ['POST', '/devices/guard-01/revoke', { reason: 'keyCompromise' }],
    ['POST', 'serial', { reason: 'keyCompromise' }],
    ['GET', '/certificates?device=guard-01', undefined],
    ['GET', '/ca/crls', undefined],
  ] as const
  const roles = [
    { role: 'vendor', may: [] },
    { role: 'operator', may: [] },
    { role: 'auditor', may: ['GET'] },
  ]
  test.for(roles)('$role: $may', async ({ role, may }) => {
    const { status: known } = await node.admin.call('GET', '/devices/guard-01')
    if (known === 404) await node.device('guard-01')
    const [row] = node.rows(`SELECT serial FROM ca_certificate WHERE subject = 'guard-01'`)
    const party = role === 'vendor' ? 'vendor' : 'staff'
    const person = role === 'vendor' ? vendor : await node.person(role, { party, roles: [role] })
    for (const [method, path, body] of calls) {
      const real = path === 'serial' ? `/certificates/${String(row?.['serial'])}/revoke` : path
      const { status } = await person.call(method, real, body)
      expect([method, path, status]).toEqual([method, path, may.includes(method) ? 200 : 403])
    }
    expect(node.rows(`SELECT state FROM ca_certificate WHERE subject = 'guard-01'`)).toEqual([
      { state: 'active' },
    ])
  })
  const wrong: readonly [string, string, unknown, number, string][] = [
    [
      'an unknown serial',
      `/certificates/${'4f'.repeat(16)}/revoke`,
      { reason: 'superseded' },
      404,
      'certificate.unknown',
    ],
    [
      'a serial that is none',
      '/certificates/xyz/revoke',
      { reason: 'superseded' },
      400,
      'body.invalid',
    ],
    [
      'a reason that is none',
      `/certificates/${'4f'.repeat(16)}/revoke`,
      { reason: 'because' },
      400,
      'body.invalid',
    ],
    [
      'a reason only CAs have',
      `/certificates/${'4f'.repeat(16)}/revoke`,
      { reason: 'cACompromise' },
      400,
      'body.invalid',
    ],
    [
      'the reason of a device key for an issuer',
      `/ca/issuers/${'4f'.repeat(20)}/revoke`,
      { reason: 'keyCompromise' },
      400,
      'body.invalid',
    ],
    ['an unknown device', '/devices/nobody/decommission', { reason: 'x' }, 404, 'device.unknown'],
    ['no reason', '/devices/guard-01/replace', {}, 400, 'body.invalid'],
  ]
  test.for(wrong)('%s', async ([, path, body, status, code]) => {
    const answer = await node.admin.call('POST', path, body)
    expect([answer.status, answer.body.code]).toEqual([status, code])
  })
})

describe('certificates', () => {
  test('of one device, newest first, with how each ended', async () => {
    const device = await node.device('list-01')
    const newer = await node.renew(device)
    await node.admin.ask('POST', `/certificates/${serialOf(device)}/revoke`, {
      reason: 'superseded',
    })
    const { items } = await node.admin.ask<{ items: Certificate[] }>(
      'GET',
      '/certificates?device=list-01',
    )
    expect(
      items.map(({ serial, state, reason, renews }) => [serial, state, reason, renews]),
    ).toEqual([
      [serialOf(newer), 'active', null, serialOf(device)],
      [serialOf(device), 'revoked', 'superseded', null],
    ])
    const active = await node.admin.ask<{ items: Certificate[] }>(
      'GET',
      '/certificates?device=list-01&state=active&limit=1',
    )
    expect(active.items).toHaveLength(1)
  })
})

interface Fetched {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** A plain request: no sign-in, no client certificate. */
async function get(
  path: string,
  {
    method = 'GET',
    headers = {},
    body,
  }: { method?: string; headers?: Record<string, string>; body?: Uint8Array } = {},
): Promise<Fetched> {
  const { promise, resolve, reject } = Promise.withResolvers<Fetched>()
  const host = `localhost:${node.port}`
  const request = httpsRequest(
    { ...toNode(node), agent: false, method, path, headers: { host, ...headers } },
    (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      )
    },
  )
  request.on('error', reject)
  request.end(body)
  return await promise
}

describe('the list', () => {
  const lists = async () =>
    (await node.admin.ask<{ items: RevocationList[] }>('GET', '/ca/crls')).items
  const path = async () => new URL((await lists())[0]?.url ?? '').pathname

  test('tells of a revocation at once, to everybody, and openssl believes it', async () => {
    const device = await node.device('crl-01')
    const at = await path()
    const before = (await lists())[0]?.number ?? 0
    await node.admin.ask('POST', '/devices/crl-01/revoke', { reason: 'keyCompromise' })
    const { headers, body } = await until('the list names it', async () => {
      const fetched = await get(at)
      return fetched.body.toString('hex').includes(serialOf(device)) ? fetched : undefined
    })
    expect(headers['content-type']).toBe('application/pkix-crl')
    const file = ssl.file('got.crl', body)
    const ca = ssl.file('ca.pem', readIssuing())
    const { text } = ssl.run('crl', '-inform', 'DER', '-in', file, '-CAfile', ca, '-noout', '-text')
    expect(text).toContain('verify OK')
    expect(text).toContain('Key Compromise')
    const [now] = await lists()
    expect(now?.number).toBeGreaterThan(before)
    expect(now?.pem).toContain('BEGIN X509 CRL')
    expect((now?.next_update ?? 0) - (now?.this_update ?? 0)).toBe(86_400)
  })

  test('is kept by caches for a minute, and asked for again by its tag', async () => {
    const at = await path()
    const { status, headers, body } = await get(at)
    expect([status, headers['cache-control']]).toEqual([
      200,
      'public, max-age=60, no-transform, must-revalidate',
    ])
    expect(headers['expires']).toMatch(/GMT$/)
    const again = await get(at, { headers: { 'if-none-match': String(headers['etag']) } })
    expect([again.status, again.body.length]).toEqual([304, 0])
    const head = await get(at, { method: 'HEAD' })
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([
      200,
      String(body.length),
      0,
    ])
  })

  test.for([
    ['GET', `/crl/${'00'.repeat(20)}.crl`, 404],
    ['GET', '/crl/../store.sqlite', 404],
    ['GET', '/crl/', 404],
    ['POST', `/crl/${'00'.repeat(20)}.crl`, 405],
    ['GET', '/ocsp', 405],
    ['PUT', '/ocsp', 405],
    ['POST', '/ocsp/AAAA', 405],
    ['POST', '/ocsp', 415],
  ] as const)('%s %s: %i', async ([method, at, status]) => {
    expect((await get(at, { method })).status).toBe(status)
  })

  test('under an app’s name there is none', async () => {
    const { status } = await get(await path(), {
      headers: { host: `plc--press.apps.localhost:${node.port}` },
    })
    expect(status).not.toBe(200)
  })
})

function readIssuing(): string {
  return readFileSync(join(node.data, 'ca', 'issuing.crt'), 'utf8')
}

describe('OCSP on the port', () => {
  function request(device: DeviceIdentity, ...options: string[]): Uint8Array {
    const out = join(ssl.folder, 'request.der')
    ssl.run(
      'ocsp',
      ...options,
      '-issuer',
      ssl.file('issuing.pem', readIssuing()),
      '-cert',
      ssl.file('leaf.pem', presenting(device).cert),
      '-reqout',
      out,
    )
    return readFileSync(out)
  }
  function verdict(answer: Uint8Array): string {
    return ssl.run(
      'ocsp',
      '-respin',
      ssl.file('answer.der', answer),
      '-issuer',
      ssl.file('issuing.pem', readIssuing()),
      '-cert',
      join(ssl.folder, 'leaf.pem'),
      '-CAfile',
      ssl.file('root.pem', node.anchor),
      '-verify_other',
      join(ssl.folder, 'issuing.pem'),
    ).text
  }
  const type = { 'content-type': 'application/ocsp-request' }

  test('POST and GET say the same, before and at once after a revocation', async () => {
    const device = await node.device('ocsp-01')
    const asked = request(device, '-no_nonce')
    const inPath = `/ocsp/${encodeURIComponent(Buffer.from(asked).toString('base64'))}`
    for (const [said, prepare] of [
      ['good', async () => {}],
      [
        'revoked',
        () => node.admin.ask('POST', '/devices/ocsp-01/revoke', { reason: 'keyCompromise' }),
      ],
    ] as const) {
      await prepare()
      const posted = await get('/ocsp', { method: 'POST', headers: type, body: asked })
      const got = await get(inPath)
      for (const { status, headers, body } of [posted, got]) {
        expect([status, headers['content-type']]).toEqual([200, 'application/ocsp-response'])
        expect(verdict(body)).toContain('Response verify OK')
        expect(verdict(body)).toContain(`leaf.pem: ${said}`)
      }
      expect(posted.headers['cache-control']).toBe('no-store')
      expect(got.headers['cache-control']).toContain('max-age=60')
      expect(got.body.equals(posted.body)).toBe(true)
    }
  })

  test('with a nonce nothing is kept', async () => {
    const device = await node.device('ocsp-02')
    const body = request(device, '-nonce')
    const [first, second] = [
      await get('/ocsp', { method: 'POST', headers: type, body }),
      await get('/ocsp', { method: 'POST', headers: type, body }),
    ]
    expect(first.body.equals(second.body)).toBe(false)
    expect(first.headers['cache-control']).toBe('no-store')
  })

  test('what cannot be read is malformedRequest, what is too long 413', async () => {
    for (const [options, at] of [
      [{ method: 'POST', headers: type, body: Uint8Array.of(1) }, '/ocsp'],
      [{}, '/ocsp/%25%25'],
      [{}, '/ocsp/%'],
      [{}, '/ocsp/not*base64'],
    ] as const)
      expect((await get(at, options)).body.toString('hex')).toBe('30030a0101')
    const long = new Uint8Array(5_000)
    const { status, headers } = await get('/ocsp', { method: 'POST', headers: type, body: long })
    expect([status, headers['connection']]).toEqual([413, 'close'])
  })

  test('a responder that is revoked does not answer on', async () => {
    const device = await node.device('ocsp-03')
    const body = request(device, '-no_nonce')
    await get('/ocsp', { method: 'POST', headers: type, body })
    const responders = () =>
      node.rows(`SELECT serial FROM ca_certificate WHERE profile = 'ocsp' ORDER BY rowid`)
    const [{ serial } = {}] = responders()
    await node.admin.ask('POST', `/certificates/${String(serial)}/revoke`, {
      reason: 'keyCompromise',
    })
    // Ten who ask at once get one new responder between them.
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => get('/ocsp', { method: 'POST', headers: type, body })),
    )
    for (const answer of answers) expect(verdict(answer.body)).toContain('Response verify OK')
    expect(responders()).toHaveLength(2)
  })
})

describe('after a crash', () => {
  test('a revocation that was logged and not done is done by the next start', async () => {
    const data = mkdtempSync(join(tmpdir(), 'sallyport-crash-'))
    onTestFinished(() => rmSync(data, { recursive: true }))
    const first = await startNode({ data })
    const device = await first.device('crash-01')
    const serial = serialOf(device)
    // As a kill -9 between the event and the transaction leaves it.
    first.change(
      `INSERT INTO ca_revocation_intent (tenant, at, reason, target) VALUES (?, ?, 'keyCompromise', ?)`,
      TENANT,
      Date.now(),
      JSON.stringify({ device: 'crash-01' }),
    )
    await first[Symbol.asyncDispose]()
    const second = await startNode({ data, bare: true })
    try {
      expect(second.rows('SELECT state FROM ca_certificate WHERE serial = ?', serial)).toEqual([
        { state: 'revoked' },
      ])
      expect(second.rows('SELECT * FROM ca_revocation_intent')).toEqual([])
      const told = second.events().filter(({ code }) => code === 'cert.revoke')
      expect(told.at(-1)?.message).toContain('asked for earlier')
    } finally {
      await second[Symbol.asyncDispose]()
    }
  })
})
