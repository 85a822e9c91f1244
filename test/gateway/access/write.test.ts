/** Writing to a controller, as the gateway lets it happen: a second grant, a new connection, an event on disk before each frame. */
import { createHash } from 'node:crypto'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Grant, OpenedSession, Problem } from '#api'
import { Decisions } from '../../../gateway/decisions.ts'
import { until } from '../../support/node.ts'
import { answer as decideAs } from '../../support/policy.ts'
import { Client, expecting } from '../../support/tunnels.ts'
import {
  approved,
  asked,
  exchange,
  here,
  hex,
  NEVER_SAID,
  oneController,
  READ,
  reading,
  session,
  WINDOW,
  WRITE,
  writes,
  writing,
} from './writing.ts'

oneController()

describe('asking', () => {
  test('the addresses are signed, shown in the grant, and in words in the log', async () => {
    await reading()
    const from = here.node.size()
    const grant = await asked(here.vendor, { ot_level: 2, ot_windows: [WINDOW] })
    expect(grant).toMatchObject({ ot_level: 2, ot_windows: [WINDOW], state: 'requested' })
    // Nobody chooses from a day when the grant writes: its window is the time that was asked for.
    expect(grant.not_after - grant.not_before).toBe(600)
    const [event] = here.node.events(from).filter(({ code }) => code === 'grant.request')
    expect(event?.text).toContain('"addresses":"unit 1, registers and coils 0–9"')
    expect(event?.text).toContain('"verbs":["write"]')
    const { statement } = await here.vendor.ask<{ statement: object }>(
      'GET',
      `/grants/${grant.id}/signed`,
    )
    expect(statement).toMatchObject({ ot_level: 2, ot_windows: [WINDOW] })
  })

  test.for([
    { name: 'to write without addresses', body: { ot_level: 2 }, code: 'grant.addresses' },
    {
      name: 'unit 0',
      body: { ot_level: 2, ot_windows: [{ ...WINDOW, unit: 0 }] },
      code: 'body.invalid',
    },
    {
      name: 'unit 250',
      body: { ot_level: 2, ot_windows: [{ ...WINDOW, unit: 250 }] },
      code: 'grant.addresses',
    },
    {
      name: 'backwards',
      body: { ot_level: 2, ot_windows: [{ ...WINDOW, from: 10 }] },
      code: 'grant.addresses',
    },
    { name: 'no list at all', body: { ot_level: 2, ot_windows: [] }, code: 'body.invalid' },
    {
      name: 'seventeen windows',
      body: { ot_level: 2, ot_windows: Array.from({ length: 17 }, () => WINDOW) },
      code: 'body.invalid',
    },
    { name: 'level 3', body: { ot_level: 3, ot_windows: [WINDOW] }, code: 'body.invalid' },
    {
      name: 'addresses of a shell',
      body: { processes: ['shell'], ot_level: 2, ot_windows: [WINDOW] },
      code: 'grant.addresses',
    },
    {
      name: 'longer than the zone lets anybody write',
      body: { duration_s: 14_401, ot_level: 2, ot_windows: [WINDOW] },
      code: 'request.duration',
    },
    {
      name: 'a window longer than that',
      body: {
        not_after: Math.floor(Date.now() / 1000) + 20_000,
        ot_level: 2,
        ot_windows: [WINDOW],
      },
      code: 'grant.window',
    },
    {
      name: 'longer than what it adds to',
      body: { duration_s: 14_000, ot_level: 2, ot_windows: [WINDOW] },
      code: 'grant.window',
      held: { duration_s: 60, not_after: Math.floor(Date.now() / 1000) + 3600 },
    },
  ])('$name: $code', async ({ body, code, held }) => {
    if (held !== undefined) await approved(await asked(here.vendor, held))
    const reply = await here.vendor.call<Problem>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 600,
      reason: 'service',
      ...body,
    })
    expect(reply.body.code).toBe(code)
  })
})

describe('a session', () => {
  test('reads only, is given a grant to write, and writes over a new connection; each write is in the log before the device has it', async () => {
    await reading()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const before = await client.line(opened)
    expect(await exchange(before, WRITE)).toBe('000200000003018601')
    const from = here.node.size()
    const grant = await writing()
    expect((await here.vendor.ask<Grant>('GET', `/grants/${grant.id}`)).first_used_at).toBeNull()
    // Who only reads goes on reading, everywhere, and may not write: it was opened to read.
    expect(await exchange(before, READ)).toContain('0302002a')
    expect(await exchange(before, WRITE)).toBe('000200000003018601')

    const line = await client.line(opened)
    expect(here.agent.opened.at(-1)).toMatchObject({
      obligations: { ot_level: 2, ot_windows: [[WINDOW]] },
    })
    const used = await here.vendor.ask<Grant>('GET', `/grants/${grant.id}`)
    expect([used.state, typeof used.first_used_at]).toEqual(['active', 'number'])
    expect(
      here.node
        .events(from)
        .filter(({ code, text }) => code === 'grant.use' && text.includes(grant.id)),
    ).toHaveLength(1)
    here.got = []
    expect(await exchange(line, WRITE)).toBe(WRITE.toString('hex'))
    expect(here.got.map(({ frame }) => frame)).toEqual([WRITE.toString('hex')])
    const [event, ...more] = writes(from)
    expect(more).toEqual([])
    expect(event?.event).toMatchObject({
      unmapped: {
        sallyport: {
          grant: grant.id,
          session: opened.id,
          device: 'press-07',
          process: 'plc',
          unit: 1,
          function_code: 6,
          address: 5,
          quantity: 1,
        },
      },
    })
    expect(event?.text).toMatch(/"decisions":\[\{"id":"d_[0-9a-z]{26}"/)
    // What was written is nobody's to read here.
    expect(event?.text).not.toContain(NEVER_SAID)
    expect(event?.text).not.toContain(String(0xdead))
    expect(event?.text).not.toContain(createHash('sha256').update(hex(NEVER_SAID)).digest('hex'))
    expect(event?.idx).toBeLessThan(here.got[0]?.events ?? 0)

    expect(await exchange(line, hex('000300000006010600' + '0a0001'))).toBe('000300000003018602')
    expect(await exchange(line, hex('0004000000060006000500' + '01'))).toBe(
      '000400000003' + '00860b',
    )
    expect(await exchange(line, hex('000500000006020600050001'))).toBe('000500000003' + '02860b')
    expect(writes(from)).toHaveLength(1)
    expect(here.got).toHaveLength(1)
  })

  test('many writes at once: as many events, all before their frames, in the order they came', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    const from = here.node.size()
    const frames = Array.from({ length: 12 }, (_, at) =>
      at % 3 === 2
        ? hex(`${(at + 1).toString(16).padStart(4, '0')}00000006010300050001`)
        : hex(
            `${(at + 1).toString(16).padStart(4, '0')}0000000601060005${at.toString(16).padStart(4, '0')}`,
          ),
    )
    line.write(Buffer.concat(frames))
    const length = frames.reduce((sum, _, at) => sum + (at % 3 === 2 ? 11 : 12), 0)
    await line.until('all are answered', ({ total }) => total === length)
    expect(here.got.map(({ frame }) => frame).join('')).toBe(Buffer.concat(frames).toString('hex'))
    expect(writes(from)).toHaveLength(8)
    for (const { idx } of writes(from)) expect(idx).toBeLessThan(here.got[0]?.events ?? 0)
  })

  test('a client that ends its side after a write is not cut short', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    line.write(WRITE)
    line.stream.end()
    await line.until('the answer', ({ bytes }) => bytes.equals(WRITE))
    await line.gone()
    expect(here.got).toHaveLength(1)
  })

  test('opened after the approval writes at once, and ends with the grant to write', async () => {
    await reading()
    const grant = await writing()
    const opened = await session()
    expect(opened.expires_at).toBe(grant.not_after)
    await using client = await Client.dial(here.node)
    expect(await exchange(await client.line(opened), WRITE)).toBe(WRITE.toString('hex'))
  })

  test('is opened under one to read that will end first: it is not announced as one that writes', async () => {
    const write = await writing({ duration_s: 700 })
    const own = await approved(await asked(here.vendor, { duration_s: 600 }))
    const body = { device: 'press-07', process: 'plc', grant: own.id }
    const from = here.node.size()
    const opened = await here.vendor.ask<OpenedSession>('POST', '/sessions', body)
    here.open.sessions.push(opened)
    const start = here.node.events(from).find(({ code }) => code === 'session.start')
    expect(start?.text).toContain('"ot_level":1')
    await using client = await Client.dial(here.node)
    expect(await exchange(await client.line(opened), READ)).toContain('0302002a')
    const kept = await here.vendor.ask<Grant>('GET', `/grants/${write.id}`)
    expect(kept.first_used_at).toBeNull()
    // Nor can one be asked for that could never count.
    const refused = await here.vendor.call<Problem>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 700,
      reason: 'service',
      ot_level: 2,
      ot_windows: [WINDOW],
    })
    expect(refused.body.code).toBe('grant.window')
  })

  test('of somebody else gains nothing', async () => {
    await reading()
    await reading(here.other)
    await writing({}, here.other)
    const opened = await session()
    await using client = await Client.dial(here.node)
    expect(await exchange(await client.line(opened), WRITE)).toBe('000200000003018601')
    expect(here.agent.opened.at(-1)?.['obligations']).toMatchObject({ ot_level: 1 })
  })

  test('a grant to write alone reads its addresses, and writes nothing', async () => {
    await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect(await exchange(line, READ)).toBe('000100000003018302')
  })

  test('a grant that names what may be read is held to it', async () => {
    await approved(await asked(here.vendor, { ot_windows: [WINDOW] }))
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    expect(await exchange(line, READ)).toBe('000100000003018302')
    expect(await exchange(line, hex('000100000006010300050001'))).toBe('000100000005010302002a')
  })

  test('a grant that names addresses opens nothing that is registered as tcp by now', async () => {
    await writing()
    const body = { device: 'press-07', process: 'plc' }
    onTestFinished(
      async () =>
        void (await here.node.admin.ask(
          'PUT',
          '/devices/press-07/processes/plc',
          expecting(undefined, 'modbus'),
        )),
    )
    await here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting(undefined, 'tcp'))
    const refused = await here.vendor.call<Problem>('POST', '/sessions', body)
    expect([refused.status, refused.body.denials?.[0]?.code]).toEqual([
      403,
      'obligation.unsupported',
    ])
    expect(refused.body.detail).toContain('ot_windows')
    // One that names none is as good as before.
    await reading()
    await session()
  })

  test('two grants to write: each has its own addresses, and each write names its own grant', async () => {
    await reading()
    const first = await writing()
    const second = await writing({ ot_windows: [{ unit: 2, from: 100, to: 109 }], duration_s: 500 })
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    const from = here.node.size()
    await exchange(line, WRITE)
    await exchange(line, hex('000300000006020600640001'))
    const grants = writes(from).map(
      ({ text }) => [first, second].find(({ id }) => text.includes(id))?.id,
    )
    expect(grants).toEqual([first.id, second.id])
  })
})

describe('log before act', () => {
  test('a write whose decision is not on disk is answered 0Ah, and nothing reaches the device', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    const spy = vi.spyOn(Decisions.prototype, 'recorded').mockRejectedValue(new Error('no room'))
    onTestFinished(() => spy.mockRestore())
    expect(await exchange(line, WRITE)).toBe('00020000000301860a')
    expect(here.got).toEqual([])
    // Reads are counted and no events, so they go on.
    expect(await exchange(line, hex('000100000006010300050001'))).toContain('0302002a')
  })
})

describe('policy decides each write', () => {
  test('and what it denies is answered 01, with its decision in the log', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    decideAs((decision, point, input) => {
      const { ot } = input as { ot: { address: number } | null }
      if (point !== 'ot.verb' || ot?.address !== 5) return decision
      const denials = [{ code: 'policy.no_match', msg: 'not this one' }] as typeof decision.denials
      return { ...decision, effect: 'deny', allow: false, reasons: [], denials }
    })
    const from = here.node.size()
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect(await exchange(line, hex('000300000006010600060001'))).toBe('000300000006010600060001')
    expect(here.got).toHaveLength(1)
    const denied = await until('it is in the log', () =>
      here.node.events(from).find(({ code }) => code === 'ot.deny'),
    )
    expect(denied.text).toContain('policy.no_match')
    expect(denied.text).toMatch(/"decisions":\[\{"id":"d_/)
  })

  test('under ot_each every read too, and a session is no longer refused for it', async () => {
    await reading()
    const points: string[] = []
    decideAs((decision, point, input) => {
      const { ot } = input as {
        ot: { op: string; address: number | null; count: number | null } | null
      }
      if (ot !== null) points.push(`${point} ${ot.op} ${ot.address} ${ot.count}`)
      return { ...decision, obligations: { ...decision.obligations, ot_each: true } }
    })
    const opened = await session()
    await using client = await Client.dial(here.node)
    const line = await client.line(opened)
    expect(await exchange(line, READ)).toContain('0302002a')
    line.write(hex('00040000000201' + '11'))
    await until('what a device is called was asked for', () => points.length > 1)
    expect(points).toEqual(['ot.verb read 100 1', 'ot.verb read null null'])
    expect(writes(0).some(({ text }) => text.includes(opened.id))).toBe(false)
  })
})
