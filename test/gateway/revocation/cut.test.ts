/** Revocation as the plant meets it: tunnels and sessions that are open end within a second, and nothing brings them back. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Device, ReplacedDevice, Revocation, RevokedDevice } from '#api'
import { ALPN, driveTunnel } from '#tunnel'
import {
  dial,
  grantFor,
  openSession,
  presenting,
  soon,
  startNode,
  TENANT,
  toNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import {
  attach,
  Client,
  dialDevice,
  expecting,
  hello,
  PLC,
  refusalOf,
  seen,
} from '../../support/tunnels.ts'
import { serialOf, turnedAway } from './dialling.ts'

let node: TestNode
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
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'pressmaker' })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
})

const listening = { listeners: { plc: seen(PLC, 'listener') } }
const encode = (value: unknown) => Buffer.from(JSON.stringify(value))

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
    expect(await turnedAway(node, device)).toBe('peer.revoked')
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
  expect(await turnedAway(node, device)).toBe('peer.revoked')
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
    expect(await turnedAway(node, device)).toBe('peer.revoked')
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
