import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { endReasons, eventCodes, type EventCode, type EventInput } from '#audit'
import type { Row } from '../../audit/event-row.ts'
import { events, rowOf } from '../../audit/event.ts'
import { complete, faults, joinOf } from '../../audit/format/ocsf.ts'
import { render, uuid7 } from '../../audit/format/render.ts'

const source = {
  origin: 'sallyport.test/audit/n1/1',
  node: 'n1',
  version: '0.1.0',
  tenant: 'main.test',
}
const now = 1_800_000_000_000
const random = new Uint8Array(10).fill(7)
const body = (event: EventInput, idx = 5): Record<string, unknown> =>
  JSON.parse(
    Buffer.from(complete(render(event, source, now, random).head, idx)).toString(),
  ) as Record<string, unknown>

const sample: Record<string, unknown> = {
  text: 'x',
  integer: 1,
  flag: true,
  texts: ['a'],
  json: { a: [1] },
}
const special: Record<string, string> = { verb: 'create', method: 'GET', how: 'close' }

/** An event of a code with everything its row needs, and with its optional fields where asked. */
function full(code: EventCode, optional: boolean): EventInput {
  const row: Row = rowOf(code)
  const data: Record<string, unknown> = {}
  for (const [name, type] of Object.entries(row.data)) {
    if (type.endsWith('?') && !optional) continue
    data[name] = special[name] ?? sample[(type.split(' ')[1] ?? '').replace('?', '')]
  }
  const facts = {
    actor: { uid: 'i|s', name: 'Vera', org: 'Vendor' },
    src: { ip: '192.0.2.7' },
    device: 'press-07',
    process: 'plc',
    grant: 'g_1',
    session: 's_1',
  }
  const kept = optional
    ? facts
    : Object.fromEntries(
        Object.entries(facts).filter(([name]) => row.needs.includes(name as 'actor')),
      )
  return {
    code,
    message: 'what happened',
    status: 'success',
    ...(code === 'session.end' ? { reason: 'killed' } : {}),
    ...kept,
    data,
  } as EventInput
}

describe('every event of the catalogue', () => {
  test.for(
    eventCodes.flatMap((code) => [
      { code, optional: false, how: 'least' },
      { code, optional: true, how: 'most' },
    ]),
  )('$code, given the $how it can be, is valid OCSF', ({ code, optional }) => {
    const written = body(full(code, optional))
    expect(faults(written)).toEqual([])
    expect(written).toMatchObject({
      time: now,
      status_id: 1,
      metadata: { event_code: code, sequence: 5, version: '1.8.0' },
    })
  })
  test.for(eventCodes)('%s without a fact or field it needs is refused', (code) => {
    const event = full(code, false) as EventInput & { data: Record<string, unknown> }
    for (const fact of rowOf(code).needs)
      expect(() => body({ ...event, [fact]: undefined } as EventInput)).toThrow(/missing/)
    for (const name of Object.keys(event.data))
      if (name !== 'how')
        expect(() =>
          body({ ...event, data: { ...event.data, [name]: undefined } } as unknown as EventInput),
        ).toThrow(/missing/)
  })
})

describe('fields', () => {
  const event: EventInput = {
    code: 'cert.issue',
    message: 'issued',
    status: 'success',
    data: { serial: '01', one_time_token: 'hunter2' },
  }
  test('secret ones are accepted and never written', () => {
    const written = Buffer.from(complete(render(event, source, now, random).head, 0)).toString()
    expect(written).not.toContain('hunter2')
    expect(written).not.toContain('one_time_token')
    for (const code of eventCodes) {
      const secret = Object.entries(rowOf(code).data).filter(([, type]) =>
        type.startsWith('secret'),
      )
      if (secret.length === 0) continue
      const marked = {
        ...full(code, true),
        data: {
          ...full(code, true).data,
          ...Object.fromEntries(secret.map(([name]) => [name, 'hunter2'])),
        },
      }
      expect(JSON.stringify(body(marked as EventInput))).not.toContain('hunter2')
    }
  })
  test.for([
    { name: 'one the row does not know', data: { serial: '01', extra: 1 } },
    { name: 'a number for a text', data: { serial: 1 } },
    { name: 'a fraction for an integer', data: { serial: '01', not_after: 1.5 } },
    { name: 'a text among the texts that is none', data: { serial: '01', sans: ['a', 1] } },
    { name: 'an inherited name', data: { serial: '01', ['valueOf']: 'x' } },
  ] as { name: string; data: Record<string, unknown> }[])('$name is refused', ({ data }) => {
    expect(() => body({ ...event, data } as unknown as EventInput)).toThrow(/^cert.issue/)
  })
  test('status, message, verb and method are closed', () => {
    expect(() => body({ ...event, status: 'fine' as never })).toThrow(/status/)
    expect(() => body({ ...event, message: '' })).toThrow(/message/)
    expect(() =>
      body({ code: 'http.request', message: 'm', status: 'success', data: { method: 'BREW' } }),
    ).toThrow(/BREW/)
    expect(() => rowOf('toString')).toThrow(/no such event/)
  })
  test('reasons of an end are the closed list', () => {
    expect(new Set(endReasons).size).toBe(14)
    expect(events['session.end'].activity).toBe('how')
  })
})

test('whatever text an event holds, its body has no byte below 0x20 and joins by its end', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary', minLength: 1 }),
      fc.string({ unit: 'binary' }),
      fc.nat(),
      (message, name, idx) => {
        const { head, uid } = render(
          { code: 'auth.login', message, status: 'failure', actor: { uid: name, name: message } },
          source,
          now,
          random,
        )
        const bytes = complete(head, idx)
        expect(bytes.every((byte) => byte >= 0x20)).toBe(true)
        expect(joinOf(bytes)).toEqual({ uid, code: 'auth.login', sequence: idx })
        expect(JSON.parse(Buffer.from(bytes).toString())).toMatchObject({
          metadata: { uid, sequence: idx },
        })
      },
    ),
  )
})

test('a uid is a UUID of version 7 and sorts by time', () => {
  const one = uuid7(now, random)
  expect(one).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  expect(uuid7(now + 1, new Uint8Array(10)) > one).toBe(true)
  expect(Number.parseInt(one.slice(0, 8) + one.slice(9, 13), 16)).toBe(now)
})

describe('as written', () => {
  const vectors = JSON.parse(
    readFileSync(new URL('../vectors/events/bodies.json', import.meta.url), 'utf8'),
  ) as {
    name: string
    event: EventInput
    body: Record<string, unknown>
  }[]
  test.for(vectors)('$name', ({ event, body: expected }) => {
    expect(body(event)).toEqual(expected)
  })
})
