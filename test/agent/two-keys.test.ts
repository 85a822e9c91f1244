/** Two keys on a device: a gateway alone opens nothing, whatever it sends; what is pinned changes by its own people. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { AgentError, layIsland, liftIsland, pinApprovers, readApprovers } from '#agent'
import { enrolAgent, removeApprovers, rotateApprovers, runAgent } from '#agent'
import { hashOf, hashOfSet, type ApproverSet, type Statement } from '#approval'
import type { TunnelRefused } from '#tunnel'
import { Forwarder, type ForwardOptions } from '../../agent-tunnel/agent/forward.ts'
import { openTwoKeys } from '../../agent-tunnel/agent/two-keys.ts'
import { softKey, type SoftKey } from '../support/authenticator.ts'
import { HandClock } from '../support/clock.ts'
import { configOf, Directory, enrolled } from './device.ts'
import { DEVICE, FakeGateway, soon } from './gateway.ts'
import { reached, sighting } from './reached.ts'
import { statementOf } from '../support/statement.ts'

const ORIGIN = 'https://gw.plant.example:8443'
const NOW = 1_780_000_000
const [oda, olaf, thief] = [0, 1, 2].map(() => softKey(ORIGIN)) as [SoftKey, SoftKey, SoftKey]
const approver = (person: string, key: SoftKey) => ({
  person,
  credential: key.id,
  key: key.signing,
})
const SET: ApproverSet = {
  v: 1,
  tenant: 'main.sallyport.internal',
  device: 'press-07',
  seq: 1,
  quorum: 1,
  relying_party: { id: 'gw.plant.example', origins: [ORIGIN] },
  approvers: [approver('oda', oda), approver('olaf', olaf)],
  modbus: [],
}
const STATEMENT = statementOf(NOW, {
  id: 'g_00000000000000000000000001',
  requester: 'https://gw/oidc|a',
  vendor: 'Pumpworks',
})
const text = (set: object) => JSON.stringify(set)
const signed = (hash: string, ...by: SoftKey[]) =>
  by.map((key) => key.assertion(Buffer.from(hash, 'hex').toString('base64url')))

function device() {
  const directory = new Directory()
  onTestFinished(() => directory[Symbol.dispose]())
  return { dataDir: directory.path, device: SET.device, tenant: SET.tenant }
}

/** A device whose owner pinned SET, its program, and the tunnel's other end. */
async function pinned() {
  const place = device()
  pinApprovers(place, text(SET), 'set.json')
  let dialled = 0
  const { port, agent, gateway } = await reached(() => void dialled++)
  const clock = new HandClock()
  let system = NOW * 1000
  const logged: string[] = []
  const says: { owner: object } = { owner: { code: 'owner.asked' } }
  const serve = () => {
    const twoKeys = openTwoKeys(place, { system: () => system, monotonic: clock, log: () => {} })
    const options = {
      targets: new Map([
        ['plc', { kind: 'tcp', endpoint: { address: '127.0.0.1', port } }],
        ['asked', { kind: 'tcp', endpoint: { address: '127.0.0.1', port }, consent: true }],
      ]),
      consents: { ask: async () => says.owner },
      scope: {
        observeAccepted: async () => ({ ok: true, sighting }),
        recheck: async () => new Promise(() => {}),
      },
      clock,
      acceptDeadlineMs: 1000,
      log: (_: string, code: string) => void logged.push(code),
      ownerChanged: () => {},
      twoKeys,
    } as unknown as ForwardOptions
    const forwarder = new Forwarder(options)
    agent.onOpen = (offer) => void forwarder.serve(offer)
  }
  serve()
  const open = async (more: object, remaining_ms = 86_400_000) => {
    const ask = { v: 1, session: `s_${'0'.repeat(26)}`, process: 'plc', remaining_ms, ...more }
    return gateway.open('tcp', Buffer.from(JSON.stringify(ask)))
  }
  return {
    place,
    says,
    clock,
    open,
    /** Resolves once the agent has said so, that often. */
    told: async (code: string, times = 1) =>
      await expect.poll(() => logged.filter((one) => one === code).length).toBe(times),
    restart: serve,
    pass: (seconds: number) => {
      system += seconds * 1000
    },
    dialled: () => dialled,
    refusal: async (more: object) =>
      open(more).then(
        () => 'opened',
        (error: unknown) => (error as TunnelRefused).code,
      ),
  }
}

const grant = (statement = STATEMENT, by: readonly SoftKey[] = [oda]) => ({
  grant: { statement, assertions: signed(hashOf(statement), ...by) },
})

describe('a forged OPEN is refused before anything is dialled', () => {
  const edited = { ...STATEMENT, not_after: NOW + 360_000 }
  const rows: readonly (readonly [string, object, string])[] = [
    ['without a grant', {}, 'approvers.missing'],
    ['without assertions', { grant: { statement: STATEMENT, assertions: [] } }, 'approvers.quorum'],
    ['signed by the gateway’s own passkey', grant(STATEMENT, [thief]), 'approvers.quorum'],
    [
      'with assertions for another grant',
      { grant: { ...grant({ ...STATEMENT, reason: 'another' }).grant, statement: STATEMENT } },
      'approvers.quorum',
    ],
    [
      'replayed for an edited grant',
      { grant: { ...grant().grant, statement: edited } },
      'approvers.quorum',
    ],
    ['for another device', grant({ ...STATEMENT, devices: ['press-08'] }), 'approvers.target'],
    ['under a seal', grant({ ...STATEMENT, sealed: { quorum: 2 } }), 'approvers.target'],
    ['under no seal of one', grant({ ...STATEMENT, sealed: { quorum: 1 } }), 'approvers.statement'],
  ]
  test.for(rows)('%s', async ([, more, code]) => {
    const { refusal, dialled } = await pinned()
    expect(await refusal(more)).toBe(code)
    expect(dialled()).toBe(0)
  })

  test('of a grant that is over by the device’s clock, whatever the gateway says of the time', async () => {
    const { refusal, pass } = await pinned()
    pass(3600 + 121)
    expect(await refusal(grant())).toBe('approvers.time')
  })

  test('after the pinned file was broken or taken away', async () => {
    const { refusal, place } = await pinned()
    writeFileSync(join(place.dataDir, 'approvers.json'), '{')
    expect(await refusal(grant())).toBe('approvers.invalid')
    rmSync(join(place.dataDir, 'approvers.json'))
    expect(await refusal(grant())).toBe('approvers.invalid')
  })
})

test('signed: it opens, for as long as was signed, and the time is used up once', async () => {
  const { open, refusal, clock, pass, restart, dialled } = await pinned()
  const stream = await open(grant())
  expect(dialled()).toBe(1)
  const closed = new Promise<{ code: string }>((resolve) => {
    stream.onClose = resolve
  })
  stream.signal(Buffer.from('{"t":"proceed"}'))
  clock.pass(600_000)
  expect((await closed).code).toBe('lease.spent')
  pass(599)
  restart()
  expect(await refusal(grant())).toBe('opened')
  pass(1)
  expect(await refusal(grant())).toBe('approvers.time')
})

describe('a grant whose window comes back', () => {
  // NOW is Thursday 2026-05-28, 20:26:40 UTC.
  const recurring = { tz: 'UTC', days: [4], from_min: 20 * 60, to_min: 20 * 60 + 30 }
  const weekly: Statement = {
    ...STATEMENT,
    not_after: NOW + 30 * 86_400,
    max_duration_s: 30 * 86_400,
    recurring,
  }
  test('opens for as long as the window is open, whatever the gateway says', async () => {
    const { open, refusal, clock, pass } = await pinned()
    const stream = await open(grant(weekly))
    const closed = new Promise<{ code: string }>((resolve) => {
      stream.onClose = resolve
    })
    stream.signal(Buffer.from('{"t":"proceed"}'))
    // 200 s to the end of the window; of the grant there are weeks left.
    clock.pass(200_000)
    expect((await closed).code).toBe('lease.spent')
    pass(200)
    expect(await refusal(grant(weekly))).toBe('approvers.time')
    pass(7 * 86_400 - 200)
    expect(await refusal(grant(weekly))).toBe('opened')
  })
  test('between two windows nothing is dialled, nor under a rule that nobody signed', async () => {
    const { refusal, dialled } = await pinned()
    const later = { ...weekly, recurring: { ...recurring, days: [5] } }
    expect(await refusal(grant(later))).toBe('approvers.time')
    const { recurring: _, ...always } = later
    const shown = { statement: always, assertions: grant(later).grant.assertions }
    expect(await refusal({ grant: shown })).toBe('approvers.quorum')
    expect(dialled()).toBe(0)
  })
  test('a clock that is put back into the window opens nothing behind what was opened after it', async () => {
    const { refusal, pass } = await pinned()
    pass(7 * 86_400)
    expect(await refusal(grant(weekly))).toBe('opened')
    pass(300)
    const other = {
      ...weekly,
      recurring: { ...recurring, from_min: 20 * 60 + 30, to_min: 21 * 60 },
    }
    expect(await refusal(grant(other))).toBe('opened')
    pass(-300)
    expect(await refusal(grant(weekly))).toBe('approvers.time')
  })
})

describe('a grant that is extended', () => {
  const longer: Statement = {
    ...STATEMENT,
    id: 'g_00000000000000000000000002',
    max_duration_s: 1200,
    extends: { grant: STATEMENT.id, sha256: hashOf(STATEMENT) },
  }
  async function opened() {
    const device = await pinned()
    const stream = await device.open(grant())
    const closed = new Promise<{ code: string }>((resolve) => {
      stream.onClose = resolve
    })
    const renew = (more: object) =>
      stream.signal(Buffer.from(JSON.stringify({ t: 'lease', remaining_ms: 86_400_000, ...more })))
    stream.signal(Buffer.from('{"t":"proceed"}'))
    // Signals come in order: what was said before is heard, once this one is refused.
    renew({})
    await device.told('lease.refused')
    return { ...device, closed, renew }
  }

  test('by what its approvers signed: what is open goes on, and ends with that', async () => {
    const { clock, closed, renew, told } = await opened()
    renew(grant(longer))
    await told('lease.renewed')
    clock.pass(1_199_000)
    // Only what is still open hears that.
    renew(grant(longer))
    await told('lease.renewed', 2)
    clock.pass(1000)
    expect((await closed).code).toBe('lease.spent')
  })

  test('by the gateway’s word alone: it ends when it would have', async () => {
    const { clock, closed, renew, told } = await opened()
    const tries = [
      {},
      { grant: 'too_long' },
      grant(longer, [thief]),
      grant({ ...longer, processes: ['asked'] }),
      { grant: { statement: longer, assertions: grant().grant.assertions } },
    ]
    for (const more of tries) renew(more)
    await told('lease.refused', tries.length + 1)
    clock.pass(599_999)
    renew({})
    await told('lease.refused', tries.length + 2)
    clock.pass(1)
    expect((await closed).code).toBe('lease.spent')
  })

  test('what is no number of milliseconds renews nothing', async () => {
    const { clock, closed, renew, told } = await opened()
    for (const remaining_ms of [0, -1, 0.5, '9', null, undefined, 1e300])
      renew({ ...grant(longer), remaining_ms })
    renew({})
    await told('lease.refused', 2)
    clock.pass(600_000)
    expect((await closed).code).toBe('lease.spent')
    await told('lease.renewed', 0)
  })

  test('counts from the first use of what it extends, and both are one use', async () => {
    const { refusal, pass, restart } = await pinned()
    expect(await refusal(grant())).toBe('opened')
    pass(600)
    restart()
    expect(await refusal(grant())).toBe('approvers.time')
    expect(await refusal(grant(longer))).toBe('opened')
    pass(600)
    expect(await refusal(grant(longer))).toBe('approvers.time')
  })
})

test('a clock that is set back makes no grant longer, across a restart neither', async () => {
  const { refusal, pass, clock, restart } = await pinned()
  expect(await refusal(grant())).toBe('opened')
  // Time that nobody sets goes on, while the clock of the machine stands still.
  clock.pass(599_000)
  expect(await refusal(grant())).toBe('opened')
  pass(-100)
  restart()
  expect(await refusal(grant())).toBe('opened')
  clock.pass(1_000)
  expect(await refusal(grant())).toBe('approvers.time')
})

test('a clock that goes ahead and back forgets no use, and locks nobody out', async () => {
  const { refusal, pass, restart } = await pinned()
  const other = { ...STATEMENT, id: 'g_00000000000000000000000002' }
  const far = { ...other, not_before: NOW + 86_400, not_after: NOW + 90_000 }
  expect(await refusal(grant())).toBe('opened')
  pass(86_400)
  expect(await refusal(grant())).toBe('approvers.time')
  restart()
  pass(-86_400 + 600)
  expect(await refusal(grant(other))).toBe('opened')
  expect(await refusal(grant())).toBe('approvers.time')
  // One that was signed for then has been opened then: there is no way back behind it.
  pass(86_400)
  expect(await refusal(grant(far))).toBe('opened')
  restart()
  pass(-86_400)
  expect(await refusal(grant())).toBe('approvers.time')
})

test('uses written down before the file held the latest time count on', async () => {
  const { refusal, place } = await pinned()
  const use = { first: NOW - 600, until: STATEMENT.not_after }
  const uses = join(place.dataDir, 'first-uses.json')
  writeFileSync(uses, JSON.stringify({ [hashOf(STATEMENT)]: use }))
  expect(await refusal(grant())).toBe('approvers.time')
})

test('what is refused is no first use', async () => {
  const { refusal, place, says, pass, dialled } = await pinned()
  const wide = { ...STATEMENT, processes: ['asked', 'none'] }
  expect(await refusal({ ...grant(wide), process: 'none' })).toBe('target.unknown')
  expect(await refusal({ ...grant(wide), process: 'asked' })).toBe('owner.asked')
  expect(existsSync(join(place.dataDir, 'first-uses.json'))).toBe(false)
  pass(600)
  says.owner = { consent: { by: 'a', at: NOW } }
  expect(dialled()).toBe(0)
  expect(await refusal({ ...grant(wide), process: 'asked' })).toBe('opened')
})

test('a first use that cannot be written down is none', async () => {
  const { refusal, place, dialled } = await pinned()
  const uses = join(place.dataDir, 'first-uses.json')
  for (const text of [
    'not JSON',
    '[]',
    '{"seen":1}',
    '{"seen":"1","uses":{}}',
    '{"a":{"first":1}}',
  ]) {
    writeFileSync(uses, text)
    expect(await refusal(grant())).toBe('approvers.invalid')
  }
  expect(dialled()).toBe(0)
  rmSync(uses)
  // Writing aside fails, reading does not: it is noticed just before the stream would be opened.
  mkdirSync(`${uses}.new`)
  expect(await refusal(grant())).toBe('approvers.invalid')
  expect(existsSync(uses)).toBe(false)
})

const bare = { system: () => 0, monotonic: new HandClock(), log: () => {} }

describe('the pinned set', () => {
  const code = (work: () => unknown): string => {
    try {
      work()
      return 'done'
    } catch (error) {
      return error instanceof AgentError ? error.code : String(error)
    }
  }
  const next: ApproverSet = {
    ...SET,
    seq: 2,
    quorum: 2,
    approvers: [approver('oda', oda), approver('new', thief)],
  }

  test('is for this device, is pinned once, and its file is the owner’s alone', () => {
    const place = device()
    expect(code(() => pinApprovers({ ...place, device: 'press-08' }, text(SET), 'f'))).toBe(
      'approvers.invalid',
    )
    expect(code(() => pinApprovers(place, text(SET), 'f'))).toBe('done')
    expect(code(() => pinApprovers(place, text(SET), 'f'))).toBe('done')
    expect(code(() => pinApprovers(place, text(next), 'f'))).toBe('approvers.pinned')
    expect(readApprovers(place)).toEqual(SET)
  })

  test('is replaced by what its own people signed, and by nothing else', () => {
    const place = device()
    expect(code(() => rotateApprovers(place, text(next), 'f', []))).toBe('approvers.refused')
    pinApprovers(place, text(SET), 'f')
    const before = readFileSync(join(place.dataDir, 'approvers.json'), 'utf8')
    const tries: readonly (readonly unknown[])[] = [
      [],
      signed(hashOfSet(next), thief),
      signed(hashOf(STATEMENT), oda),
    ]
    for (const given of tries)
      expect(code(() => rotateApprovers(place, text(next), 'f', given))).toBe('approvers.refused')
    expect(readFileSync(join(place.dataDir, 'approvers.json'), 'utf8')).toBe(before)
    const given = signed(hashOfSet(next), oda)
    expect(code(() => rotateApprovers(place, text(next), 'f', given))).toBe('done')
    expect(readApprovers(place)).toEqual(next)
    // And there is no way back to the one before.
    expect(code(() => rotateApprovers(place, text(SET), 'f', signed(hashOfSet(SET), oda)))).toBe(
      'approvers.refused',
    )
  })

  const opened = (place: ReturnType<typeof device>) =>
    openTwoKeys(place, bare) === undefined ? 'one key' : 'two keys'
  const gone = (place: ReturnType<typeof device>) => rmSync(join(place.dataDir, 'approvers.json'))

  test('gone from a device that was pinned or held it once: nobody is let in, and it is not pinned anew', () => {
    const place = device()
    pinApprovers(place, text(SET), 'f')
    gone(place)
    expect(code(() => opened(place))).toBe('approvers.invalid')
    expect(code(() => pinApprovers(place, text(next), 'f'))).toBe('approvers.invalid')
    expect(code(() => rotateApprovers(place, text(next), 'f', []))).toBe('approvers.invalid')
    const byHand = device()
    writeFileSync(join(byHand.dataDir, 'approvers.json'), text(SET))
    expect(opened(byHand)).toBe('two keys')
    gone(byHand)
    expect(code(() => opened(byHand))).toBe('approvers.invalid')
  })

  test('is given up by its own command alone, also one that is gone', () => {
    const place = device()
    expect(removeApprovers(place)).toBe(false)
    pinApprovers(place, text(SET), 'f')
    gone(place)
    expect(removeApprovers(place)).toBe(true)
    expect(opened(place)).toBe('one key')
    expect(code(() => pinApprovers(place, text(next), 'f'))).toBe('done')
    expect(opened(place)).toBe('two keys')
  })

  test('gone before the owner’s switch is lifted: the agent ends rather than to go on with one key', async () => {
    await using gateway = await FakeGateway.start()
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    pinApprovers(config, text({ ...SET, device: DEVICE, tenant: config.tenant }), 'f')
    const cut = Promise.withResolvers<void>()
    const options = {
      signal: new AbortController().signal,
      log: (_level: string, event: string) => event === 'island.on' && cut.resolve(),
      random: () => 0,
    }
    const code = async (run: Promise<void>) =>
      soon('it ends', run).catch((error: unknown) => (error as AgentError).code)
    const run = runAgent(config, options)
    const [ended] = [code(run), await gateway.nextTunnel()]
    layIsland(directory.path, undefined, '2026-01-02T03:04:05.000Z')
    await soon('it is cut off', cut.promise)
    rmSync(join(directory.path, 'approvers.json'))
    liftIsland(directory.path)
    expect(await ended).toBe('approvers.invalid')
    expect(await code(runAgent(config, options))).toBe('approvers.invalid')
  })

  test('absent: the gateway decides alone, as ever', () => {
    const place = device()
    expect(openTwoKeys(place, bare)).toBeUndefined()
    expect(existsSync(join(place.dataDir, 'approvers.json'))).toBe(false)
  })
})

test('enrolling as another device pins nobody: what is here is that device’s', async () => {
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  const approvers = { text: text({ ...SET, device: 'press-08' }), path: 'approvers.json' }
  const asked = gateway.asked.length
  const options = { token: 't', approvers, log: () => undefined }
  await expect(enrolAgent({ ...config, device: 'press-08' }, options)).rejects.toMatchObject({
    code: 'config.other_device',
  })
  expect(readdirSync(directory.path)).not.toContain('approvers.json')
  expect(readdirSync(directory.path)).not.toContain('two-keys')
  expect(gateway.asked).toHaveLength(asked)
})

test('who is to be pinned is pinned before there is a certificate, or nothing is asked for', async () => {
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  const config = configOf(gateway, directory)
  const log = () => undefined
  const broken = { text: '{}', path: 'approvers.json' }
  await expect(enrolAgent(config, { token: 't', approvers: broken, log })).rejects.toMatchObject({
    code: 'approvers.invalid',
  })
  expect(gateway.asked).toEqual([])
  const approvers = { text: text(SET), path: 'approvers.json' }
  await enrolAgent(config, { token: await gateway.bench.token(), approvers, log })
  expect(readdirSync(directory.path)).toContain('approvers.json')
})
