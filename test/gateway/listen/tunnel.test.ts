/** Who may keep a tunnel: every certificate that is not good enough, and every agent that does not keep to the protocol. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { createAuthority, instant, openIssuers, profiles, softwareSigner, type Issuers } from '#ca'
import type { CloseReason, Tunnel } from '#tunnel'
import { Registry, type Presence } from '../../../gateway/devices/presence.ts'
import { signingIdentifier } from '../../../ca/algorithm.ts'
import { writeGeneralNames, writeName } from '../../../ca/der/name.ts'
import { bitString, sequence } from '../../../ca/der/writer.ts'
import { compile } from '../../../ca/template.ts'
import {
  newKey,
  soon,
  startNode,
  TENANT,
  until,
  type DeviceIdentity,
  type LoggedEvent,
  type TestNode,
} from '../../support/node.ts'
import { attach, dialDevice, expecting, hello, PLC, seen } from '../../support/tunnels.ts'

const HOUR = 3_600_000
const encode = (value: unknown) => Buffer.from(JSON.stringify(value))

let node: TestNode
let issuers: Issuers
let issuingKey: KeyObject
let press: DeviceIdentity

beforeAll(async () => {
  node = await startNode()
  const pem = (name: string) => readFileSync(join(node.data, 'ca', name), 'utf8')
  const der = (name: string) => new Uint8Array(new X509Certificate(pem(name)).raw)
  const passphrase = readFileSync(join(node.data, 'keys', 'ca-passphrase'), 'utf8').trimEnd()
  issuingKey = createPrivateKey({ key: pem('issuing.key.pem'), passphrase })
  const signer = softwareSigner(issuingKey)
  issuers = openIssuers({
    roots: [der('root.crt')],
    active: { certificate: der('issuing.crt'), signer },
  })
  press = await node.device('press-07', { plc: expecting() })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
})

interface Forgery {
  readonly device?: string
  readonly tenant?: string
  readonly notBefore?: number
  readonly notAfter?: number
  readonly key?: KeyObject
  readonly profile?: keyof typeof profiles
  readonly by?: { readonly issuers: Issuers; readonly key: KeyObject }
}

/** A certificate as our CA would sign it, for whatever is asked; on nobody's record. */
function forge(forgery: Forgery = {}): DeviceIdentity {
  const { device = 'press-07', tenant = TENANT, key = newKey(), profile = 'device' } = forgery
  const { by = { issuers, key: issuingKey } } = forgery
  const { active } = by.issuers
  const { algorithm } = active.signer
  const tbs = compile(profiles[profile], { ...active, algorithm }).fill({
    serial: Uint8Array.of(1, ...randomBytes(15)),
    notBefore: instant(forgery.notBefore ?? Date.now() - HOUR),
    notAfter: instant(forgery.notAfter ?? Date.now() + HOUR),
    subject: writeName([{ type: 'commonName', text: device }]),
    spki: new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' })),
    san: writeGeneralNames([{ kind: 'uri', text: `sallyport://${tenant}/device/${device}` }]),
  })
  const signature = new Uint8Array(sign('sha256', tbs, by.key))
  return {
    id: device,
    key,
    chain: [sequence(tbs, signingIdentifier[algorithm], bitString(signature))],
  }
}

/** Another house with a CA of the same name: only the keys differ. */
async function stranger(): Promise<{ issuers: Issuers; key: KeyObject }> {
  const key = newKey()
  const { privateKey: rootKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const [root, issuing] = [softwareSigner(rootKey), softwareSigner(key)]
  const random = (bytes: number) => new Uint8Array(randomBytes(bytes))
  const made = await createAuthority({
    tenant: TENANT,
    root,
    issuing,
    now: instant(Date.now()),
    random,
  })
  const active = { certificate: made.issuing, signer: issuing }
  return { issuers: openIssuers({ roots: [made.root], active }), key }
}

/** Dials, asks for the control stream, and gives what the gateway said at the end. */
async function turnedAway(
  device: Pick<DeviceIdentity, 'key' | 'chain'> | undefined,
): Promise<CloseReason> {
  const tunnel = await dialDevice(node, device)
  const control = tunnel.open('control', encode(hello()))
  control.catch(() => {})
  const reason = await soon('the gateway ends the tunnel', tunnel.closed)
  await expect(control).rejects.toThrow()
  return reason
}

/** Whoever is refused with these has not proved to be anybody. */
const STRANGE: ReadonlySet<string> = new Set(['peer.none', 'peer.issuer', 'peer.signature'])

function refusalsSince(from: number): LoggedEvent[] {
  return node.events(from).filter(({ message }) => message.startsWith('tunnel refused'))
}

describe('an agent whose certificate is not good enough', () => {
  const rows: readonly {
    readonly name: string
    readonly code: string
    readonly present: () => Promise<DeviceIdentity | undefined>
  }[] = [
    { name: 'no certificate', code: 'peer.none', present: async () => undefined },
    {
      name: 'of a stranger CA that bears our names',
      code: 'peer.issuer',
      present: async () => forge({ by: await stranger() }),
    },
    {
      name: 'with our issuer’s name and key id, signed by another key',
      code: 'peer.signature',
      present: async () => forge({ by: { issuers, key: newKey() } }),
    },
    {
      name: 'expired, and signed by another key',
      code: 'peer.signature',
      present: async () =>
        forge({
          by: { issuers, key: newKey() },
          notBefore: Date.now() - 9 * HOUR,
          notAfter: Date.now() - HOUR,
        }),
    },
    {
      name: 'expired',
      code: 'peer.expired',
      present: async () => forge({ notBefore: Date.now() - 9 * HOUR, notAfter: Date.now() - HOUR }),
    },
    {
      name: 'not valid yet',
      code: 'peer.early',
      present: async () => forge({ notBefore: Date.now() + HOUR, notAfter: Date.now() + 9 * HOUR }),
    },
    {
      name: 'signed by our CA and on nobody’s record',
      code: 'peer.unknown',
      present: async () => forge(),
    },
    {
      name: 'of another tenant',
      code: 'peer.name',
      present: async () => forge({ tenant: 'other.sallyport.internal' }),
    },
    {
      name: 'of a gateway, not of a device',
      code: 'peer.purpose',
      present: async () => forge({ profile: 'gateway' }),
    },
    {
      name: 'a CA certificate',
      code: 'peer.issuer',
      present: async () => ({
        id: 'press-07',
        key: issuingKey,
        chain: [issuers.active.certificate],
      }),
    },
    {
      name: 'revoked',
      code: 'peer.revoked',
      present: async () => {
        const device = await node.device('revoked-01')
        const serial = new X509Certificate(device.chain[0] ?? '').serialNumber.toLowerCase()
        node.change(`UPDATE ca_certificate SET state = 'revoked' WHERE serial = ?`, serial)
        return device
      },
    },
    {
      name: 'superseded by one that has been used',
      code: 'peer.superseded',
      present: async () => {
        const older = await node.device('renewed-01')
        await using first = await attach(node, older)
        expect(first.welcome['device']).toBe('renewed-01')
        const newer = await node.renew(older)
        await using second = await attach(node, newer)
        expect(second.welcome['device']).toBe('renewed-01')
        return older
      },
    },
    {
      name: 'of a device that is retired',
      code: 'device.not_active',
      present: async () => {
        const device = await node.device('retired-01')
        node.change(`UPDATE device SET state = 'retired' WHERE id = 'retired-01'`)
        return device
      },
    },
    {
      name: 'of a device that is no longer in the inventory',
      code: 'device.unknown',
      present: async () => {
        const device = await node.device('gone-01')
        node.change(`DELETE FROM device WHERE id = 'gone-01'`)
        return device
      },
    },
  ]
  const repeated = new Set<string>()
  test.for(rows)('$name', async ({ code, present }) => {
    const device = await present()
    await until('nobody is connected', async () => (await node.health()).devices === 0)
    const from = node.size()
    const states = node.rows('SELECT id, state FROM device ORDER BY id')
    const reason = await turnedAway(device)
    expect([reason.code, reason.fault]).toEqual([code, 'remote'])
    expect(reason.message).not.toBe('')
    const refusals = refusalsSince(from)
    // A stranger of the same kind, from here and within the minute, has no event of its own.
    expect(refusals).toHaveLength(repeated.has(code) ? 0 : 1)
    if (STRANGE.has(code)) repeated.add(code)
    for (const { text, event } of refusals) {
      expect(text).toContain(`"${code}"`)
      const named = STRANGE.has(code) || code === 'peer.name' ? 'unknown' : device?.id
      expect(event['unmapped']).toMatchObject({ sallyport: { device: named } })
    }
    expect((await node.health()).devices).toBe(0)
    expect(node.rows('SELECT id, state FROM device ORDER BY id')).toEqual(states)
  })
})

test('an enrolment is recorded with the decision that allowed it, and so is its certificate', () => {
  const about = node.events().filter(({ event }) => {
    const { sallyport } = event['unmapped'] as { sallyport: Record<string, unknown> }
    return sallyport['device'] === 'press-07'
  })
  const decision = { revision: 'builtin-1', codes: [expect.any(String)] }
  for (const code of ['device.enroll', 'cert.issue'])
    expect(about.find((one) => one.code === code)?.event['unmapped']).toMatchObject({
      sallyport: { decisions: [decision] },
    })
})

describe('a device in quarantine', () => {
  test('keeps its tunnel and can be reached for nothing', async () => {
    const device = await node.device('quarantined-01', { plc: expecting() })
    await node.admin.ask('POST', '/devices/quarantined-01/quarantine', { reason: 'odd' })
    await using agent = await attach(node, device, { listeners: { plc: seen(PLC, 'listener') } })
    expect(agent.welcome['device']).toBe('quarantined-01')
    const asked = await node.admin.call('POST', '/grants', {
      device: 'quarantined-01',
      processes: ['plc'],
      duration_s: 60,
      reason: 'x',
    })
    expect([asked.status, asked.body.code]).toEqual([403, 'device.quarantined'])
    const opened = await node.admin.call('POST', '/sessions', {
      device: 'quarantined-01',
      process: 'plc',
    })
    expect(opened.status).toBe(403)
    expect(opened.body.denials?.map(({ code }) => code)).toContain('device.quarantined')
    expect(agent.opened).toEqual([])
  })
})

describe('an agent that does not keep to the protocol', () => {
  const first: readonly {
    readonly name: string
    readonly kind?: 'tcp' | 'control'
    readonly metadata: Uint8Array
  }[] = [
    { name: 'its first stream is no control stream', kind: 'tcp', metadata: encode(hello()) },
    { name: 'metadata that is not JSON', metadata: Buffer.from('{"v":1') },
    { name: 'metadata that is not UTF-8', metadata: Uint8Array.of(0xff, 0xfe) },
    { name: 'no metadata', metadata: new Uint8Array() },
    { name: 'another version', metadata: encode({ ...hello(), v: 2 }) },
    { name: 'no targets', metadata: encode({ ...hello(), targets: undefined }) },
    {
      name: 'an agent version of text',
      metadata: encode({ ...hello(), agent: { version: '1', version_int: '1', now_ms: 1 } }),
    },
    {
      name: 'a target whose hash is none',
      metadata: encode(
        hello([{ process: 'plc', kind: 'tcp', listener: { ...seen(PLC), sha256: 'no' } }]),
      ),
    },
    {
      name: 'a clock that is no instant',
      metadata: Buffer.from(JSON.stringify(hello()).replace(/"now_ms":\d+/, '"now_ms":1e400')),
    },
  ]
  test.for(first)('$name', async ({ kind = 'control', metadata }) => {
    const tunnel = await dialDevice(node, press)
    const from = node.size()
    const opening = tunnel.open(kind, metadata)
    opening.catch(() => {})
    expect((await soon('the tunnel ends', tunnel.closed)).code).toBe('control.metadata')
    await expect(opening).rejects.toThrow()
    expect((await node.health()).devices).toBe(0)
    expect(node.events(from).map(({ code }) => code)).not.toContain('tunnel.up')
  })

  test('a second control stream', async () => {
    await using agent = await attach(node, press)
    const again = agent.tunnel.open('control', encode(hello()))
    await expect(again).rejects.toMatchObject({ code: 'stream.unexpected' })
    expect((await node.health()).devices).toBe(1)
  })

  test('a second stream at once with the first', async () => {
    const tunnel = await dialDevice(node, press)
    const control = tunnel.open('control', encode(hello()))
    const others = Promise.allSettled(
      Array.from({ length: 50 }, () => tunnel.open('tcp', encode({}))),
    )
    await control
    const outcomes = await soon('all are answered', others)
    expect(new Set(outcomes.map((one) => one.status === 'rejected' && one.reason.code))).toEqual(
      new Set(['stream.unexpected']),
    )
    expect(tunnel.stats().streams).toBe(1)
    tunnel.close('agent.draining')
    await tunnel.closed
  })

  test('a stream opened and taken back in one breath', async () => {
    await using agent = await attach(node, press)
    for (let at = 0; at < 20; at++) {
      const stop = new AbortController()
      const opening = agent.tunnel.open('tcp', encode({}), { signal: stop.signal })
      stop.abort()
      await expect(opening).rejects.toMatchObject({ code: 'open.aborted' })
    }
    expect((await node.health()).devices).toBe(1)
  })

  const reports: readonly {
    readonly name: string
    readonly line: string
    readonly code: string
  }[] = [
    { name: 'a report that is not JSON', line: 'garbage\n', code: 'control.report' },
    { name: 'a report of an unknown type', line: '{"type":"sudo"}\n', code: 'control.report' },
    { name: 'an empty report', line: '\n', code: 'control.report' },
    { name: 'a report that is a list', line: '[]\n', code: 'control.report' },
    {
      name: 'targets of another form',
      line: '{"type":"targets","targets":{}}\n',
      code: 'control.report',
    },
    {
      name: 'more targets than a device has',
      line: `${JSON.stringify({ type: 'targets', targets: Array(257).fill({ process: 'x', kind: 'tcp', listener: null }) })}\n`,
      code: 'control.report',
    },
    { name: 'a report without an end', line: 'x'.repeat(300_000), code: 'control.limit' },
  ]
  test.for(reports)('$name', async ({ line, code }) => {
    const agent = await attach(node, press)
    agent.report(line)
    expect((await soon('the tunnel ends', agent.tunnel.closed)).code).toBe(code)
    await until('nobody is connected', async () => (await node.health()).devices === 0)
  })

  test('it closes its control stream', async () => {
    const agent = await attach(node, press)
    agent.control.end()
    agent.control.reset('agent.draining')
    expect((await soon('the tunnel ends', agent.tunnel.closed)).code).toBe('control.closed')
    await until('nobody is connected', async () => (await node.health()).devices === 0)
  })

  test('an owner of a session that is not its own', async () => {
    await using agent = await attach(node, press)
    agent.report({ type: 'owner_changed', session: `s_${'0'.repeat(26)}`, observed: null })
    agent.report({ type: 'ping' })
    agent.report({
      type: 'targets',
      targets: [{ process: 'plc', kind: 'tcp', listener: seen(PLC, 'listener') }],
    })
    await until('its report counts', async () =>
      (await node.admin.call('GET', '/devices/press-07')).text.includes(PLC),
    )
  })

  test('it is gone while it is being admitted', async () => {
    const press = await node.device('press-30', { plc: expecting() })
    const devices = async () => (await node.health()).devices
    for (let at = 0; at < 20; at++) {
      const tunnel = await dialDevice(node, press)
      void tunnel.open('control', encode(hello())).catch(() => {})
      // Each round a little later: before, while and after the gateway records the tunnel.
      for (let turns = 0; turns < at; turns++) await new Promise((resolve) => setImmediate(resolve))
      tunnel.close('agent.draining')
      await tunnel.closed
    }
    await until('nobody is left behind', async () => (await devices()) === 0)
    await using agent = await attach(node, press)
    expect(agent.welcome['device']).toBe('press-30')
    expect(await devices()).toBe(1)
  })
})

test('a tunnel that comes late does not take the place of a newer one', () => {
  const registry = new Registry()
  const peer = { serial: '01', issuer: '02' }
  const at = (epoch: number) => ({ device: 'press-07', epoch, peer, tunnel: {} }) as Presence
  const [older, newer, newest] = [at(1), at(2), at(3)]
  expect(registry.put(newer)).toEqual({ placed: true, replaced: undefined })
  expect(registry.put(older)).toEqual({ placed: false })
  expect(registry.find('press-07')).toBe(newer)
  expect(registry.put(newest)).toEqual({ placed: true, replaced: newer })
})

describe('a tunnel of the same device', () => {
  test('the newer one stays, the older is told why', async () => {
    const press = await node.device('press-31', { plc: expecting() })
    const from = node.size()
    const older = await attach(node, press)
    await using newer = await attach(node, press)
    expect((await soon('the older one ends', older.tunnel.closed)).code).toBe('tunnel.replaced')
    expect((await node.health()).devices).toBe(1)
    expect(Number(newer.welcome['epoch'])).toBeGreaterThan(Number(older.welcome['epoch']))
    const ups = await until('both are in the log', () => {
      // The end of what an earlier test had open may be written only now.
      const ours = [older, newer].map(({ welcome }) => `gw1/${String(welcome['epoch'])}"`)
      const seenHere = node
        .events(from)
        .filter(
          ({ code, text }) => code.startsWith('tunnel.') && ours.some((one) => text.includes(one)),
        )
      return seenHere.length === 3 ? seenHere : undefined
    })
    expect(ups.map(({ code }) => code).toSorted()).toEqual([
      'tunnel.down',
      'tunnel.up',
      'tunnel.up',
    ])
    expect(ups.find(({ code }) => code === 'tunnel.down')?.text).toContain('tunnel.replaced')
  })

  test('twenty at once leave one', async () => {
    const press = await node.device('press-32', { plc: expecting() })
    const all = await Promise.allSettled(Array.from({ length: 20 }, () => attach(node, press)))
    const agents = all.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    onTestFinished(() => agents.forEach(({ tunnel }) => tunnel.close('agent.draining')))
    const over = new Set<Tunnel>()
    for (const { tunnel } of agents) void tunnel.closed.then(() => over.add(tunnel))
    await until('one is left', () => over.size === agents.length - 1)
    expect((await node.health()).devices).toBe(1)
  })
})

beforeEach(async () => {
  await until('nobody is connected', async () => (await node.health()).devices === 0)
})
