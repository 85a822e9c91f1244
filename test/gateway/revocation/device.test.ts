/** Devices whose certificates end with them: replaced, decommissioned, by whom, and what is known of their certificates. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Certificate, Device, DeviceToken, ReplacedDevice, RevokedDevice } from '#api'
import { createCsr, enrollRequest, readCertificates } from '#est'
import {
  newKey,
  send,
  startNode,
  TENANT,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { attach, expecting } from '../../support/tunnels.ts'
import { serialOf, turnedAway } from './dialling.ts'

let node: TestNode
let vendor: Person
beforeAll(async () => {
  node = await startNode()
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'pressmaker' })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
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
    expect(await turnedAway(node, old)).toBe('peer.revoked')
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
