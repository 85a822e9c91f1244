/** A new issuing CA beside the old one: when it signs, who is served it, and what stops it. */
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { instant, issueServer } from '#ca'
import { activateDue, rotate } from '../../../gateway/keys/acts.ts'
import { openRoom } from '../../../gateway/keys/room.ts'
import { lockCa } from '../../../gateway/keys/state.ts'
import { newKey } from '../../ca/support.ts'
import { spkiOf } from '../../ca/requests.ts'
import { at, DAY, eachRow, here, inCa, made, start, state } from './place.ts'

eachRow()

describe('rotation', () => {
  test('served at once, signing after a device lifetime, the old key kept', async () => {
    await made()
    const { authority } = await start()
    const old = authority.issuers.active.id
    await rotate(here.room, {})
    expect(await authority.refresh()).toBe(true)
    expect(authority.issuers.active.id).toBe(old)
    expect(authority.issuers.all).toHaveLength(2)
    here.clock += 3 * DAY - 1
    expect(await authority.refresh()).toBe(false)
    here.clock += 1
    expect(await authority.refresh()).toBe(true)
    expect(authority.issuers.active.id).not.toBe(old)
    const retired = authority.issuers.all.find((each) => each.id === old)
    expect(retired?.signer).toBeDefined()
    expect(await authority.refresh()).toBe(false)
  })

  test('where device certificates live a week, the new CA waits a week', async () => {
    const longer = { ...here.config, est: { device_lifetime_hours: 168 } }
    const room = openRoom(longer, 'operator|test', { now: () => here.clock })
    await made()
    expect((await rotate(room, {})).activeFrom).toBe(here.clock + 7 * DAY)
  })

  test('one at a time; --now ends the wait', async () => {
    await made()
    await rotate(here.room, {})
    await expect(rotate(here.room, {})).rejects.toMatchObject({ code: 'ca.exists' })
    await rotate(here.room, { now: true })
    expect(await activateDue(here.room)).toBe(true)
    expect(state()?.issuers.map((each) => each.state)).toEqual(['retired', 'active'])
  })

  test('a new root: clients of either root verify the port, by openssl', async () => {
    await made()
    const before = await start()
    const oldRoot = before.authority.rootPem
    await rotate(here.room, { root: true, now: true })
    const { authority } = await start()
    expect(authority.rootPem).not.toBe(oldRoot)
    const { issuers } = authority
    expect(issuers.crosses).toHaveLength(2)
    const server = await issueServer(
      {
        tenant: here.config.tenant,
        gateway: 'gw1',
        dnsNames: ['localhost'],
        ipAddresses: [],
        publicKey: spkiOf(newKey()),
        issuers,
        now: instant(here.clock),
        random: (length) => crypto.getRandomValues(new Uint8Array(length)),
      },
      { store: memoryStore(), log: async () => undefined },
    )
    const pem = (der: Uint8Array) => new X509Certificate(der).toString()
    writeFileSync(at('leaf.pem'), pem(server.row.certificate))
    writeFileSync(
      at('chain.pem'),
      [...server.chain.slice(1).map(pem), ...authority.crosses].join(''),
    )
    for (const anchor of [oldRoot, authority.rootPem]) {
      writeFileSync(at('anchor.pem'), anchor)
      const args = [
        'verify',
        '-x509_strict',
        '-no-CApath',
        '-CAfile',
        at('anchor.pem'),
        '-untrusted',
        at('chain.pem'),
        at('leaf.pem'),
      ]
      expect(spawnSync('openssl', args, { encoding: 'utf8' }).stdout).toMatch(/OK/)
    }
  })

  test('two commands at a time: the second is told to try again', async () => {
    await made()
    using _held = lockCa(at('node', 'ca'))
    await expect(rotate(here.room, {})).rejects.toMatchObject({ code: 'ca.busy' })
  })

  test('a state that is not ours stops the start, naming the place', async () => {
    await made()
    writeFileSync(inCa('state.json'), JSON.stringify({ ...state(), issuers: [{}] }))
    await expect(start()).rejects.toMatchObject({
      code: 'ca.state',
      message: expect.stringMatching(/issuers/) as string,
    })
  })
})

/** As much of a store as one server certificate needs. */
function memoryStore() {
  const rows = new Map<string, Record<string, unknown>>()
  const store = {
    record: async (wanted: { serial: string }) => {
      const row = {
        ...wanted,
        state: 'intent',
        certificate: null,
        fingerprint: null,
        firstUsedAt: null,
        revokedAt: null,
        revocationReason: null,
      }
      rows.set(wanted.serial, row)
      return await Promise.resolve({ outcome: 'fresh', row })
    },
    complete: async (serial: string, certificate: Uint8Array, fingerprint: string) =>
      await Promise.resolve({ ...rows.get(serial), state: 'active', certificate, fingerprint }),
  }
  return store as unknown as Parameters<typeof issueServer>[1]['store']
}
