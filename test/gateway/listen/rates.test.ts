/** How often the API may be called: by whom, from where, and what is never refused for it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Response } from 'undici'
import type { Grant, Problem, Session } from '#api'
import { patient } from '../../../cli/patient.ts'
import {
  COSTLY,
  CUTTING,
  RateRefusal,
  WITNESSED,
  Rates,
  classOf,
  type ApiRates,
  type Call,
} from '../../../gateway/listen/rates.ts'
import { Allowance } from '../../../gateway/listen/allowance.ts'
import { send, startNode, until, type Person, type TestNode } from '../../support/node.ts'
import { expecting } from '../../support/tunnels.ts'

const ONE: ApiRates = { reads: 1, writes: 1, costly: 1, strangers: 1 }
/** A proof with the key `x`; what is after its header is not looked at here. */
const proofOf = (x: string): string =>
  `${Buffer.from(JSON.stringify({ jwk: { kty: 'EC', crv: 'P-256', x, y: x } })).toString('base64url')}.e30.s`
const READ: Call = {
  route: 'GET /api/v1/me',
  address: '192.0.2.1',
  authorization: 'DPoP a',
  proof: proofOf('vera'),
}
const CUT: Call = { ...READ, route: 'POST /api/v1/sessions/:id/cut' }

function refusedFor(work: () => unknown): number | undefined {
  try {
    work()
  } catch (error) {
    if (error instanceof RateRefusal) return error.retryAfterS
    throw error
  }
  return undefined
}

/** Signs in from `call` as `who` until it is refused; how often it was not. */
function fill(rates: Rates, call: Call, who: string, now: number): number {
  for (let calls = 0; calls < 1_000; calls++)
    if (refusedFor(() => rates.admit(rates.enter(call, now), who, now)) !== undefined) return calls
  return Infinity
}

describe('one identity', () => {
  test('makes ten seconds of calls at once, then one each second', () => {
    const rates = new Rates(ONE)
    expect(fill(rates, READ, 'vera', 0)).toBe(10)
    expect(fill(rates, READ, 'vera', 999)).toBe(0)
    expect(fill(rates, READ, 'vera', 2_000)).toBe(2)
  })
  test('asks for the heads of costly answers no more often than for the answers', () => {
    const rates = new Rates({ ...ONE, reads: 0 })
    const route = 'GET /api/v1/policy/who-can'
    expect(fill(rates, { ...READ, route }, 'vera', 0)).toBe(10)
    expect(fill(rates, { ...READ, route: route.replace('GET', 'HEAD') }, 'vera', 0)).toBe(0)
  })
  test('is told the seconds until it may again', () => {
    const rates = new Rates({ ...ONE, costly: 2, reads: 1 })
    fill(rates, READ, 'vera', 0)
    expect(refusedFor(() => rates.admit(rates.enter(READ, 0), 'vera', 0))).toBe(1)
  })
  test('has a budget of its own in each class, and takes nothing of another identity', () => {
    const rates = new Rates(ONE)
    fill(rates, READ, 'vera', 0)
    expect(fill(rates, { ...READ, route: 'POST /api/v1/grants' }, 'vera', 0)).toBe(10)
    expect(fill(rates, { ...READ, route: 'POST /api/v1/accounts' }, 'vera', 0)).toBe(10)
    expect(fill(rates, READ, 'otto', 0)).toBe(10)
  })
  test('cuts however much it asked for', () => {
    const rates = new Rates(ONE)
    fill(rates, READ, 'oda', 0)
    expect(fill(rates, CUT, 'oda', 0)).toBe(Infinity)
  })
  test('is refused cuts that it may not make thirty times at once, and makes those that it may', () => {
    const rates = new Rates({ ...ONE, reads: 0 })
    const refused = (call: Call, who: string, now: number) =>
      refusedFor(() => rates.refuse(rates.enter(call, now), who, now))
    rates.admit(rates.enter(READ, 0), 'vera', 0)
    const told = Array.from({ length: 31 }, () => refused(CUT, 'vera', 0))
    expect(told.map((seconds) => seconds ?? 0)).toEqual([...Array<number>(30).fill(0), 2])
    expect([refused(CUT, 'otto', 0), refused(READ, 'vera', 0)]).toEqual([undefined, undefined])
    expect(fill(rates, CUT, 'vera', 0)).toBe(Infinity)
    expect(refused(CUT, 'vera', 2_000)).toBeUndefined()
  })
  test('may cut what is not there thirty times at once, and what is there however often', () => {
    const rates = new Rates({ ...ONE, reads: 0 })
    const idle = (call: Call, who: string, now: number) =>
      refusedFor(() => rates.idle(rates.enter(call, now), who, now))
    rates.admit(rates.enter(READ, 0), 'oda', 0)
    const told = Array.from({ length: 31 }, () => idle(CUT, 'oda', 0))
    expect(told.map((seconds) => seconds ?? 0)).toEqual([...Array<number>(30).fill(0), 2])
    expect([idle(CUT, 'otto', 0), idle(READ, 'oda', 0)]).toEqual([undefined, undefined])
    expect(fill(rates, CUT, 'oda', 0)).toBe(Infinity)
    expect(idle(CUT, 'oda', 2_000)).toBeUndefined()
  })
  test('0 is no limit', () => {
    expect(fill(new Rates({ ...ONE, reads: 0 }), READ, 'vera', 0)).toBe(Infinity)
  })
})

describe('one address', () => {
  const stranger = (rates: Rates, call: Partial<Call> = {}) =>
    refusedFor(() => {
      rates.leave(rates.enter({ ...READ, ...call }, 0), 401)
    })
  const flood = (rates: Rates) => {
    for (let calls = 0; calls < 50; calls++) stranger(rates, { proof: proofOf(`${calls}`) })
  }

  test('is refused after ten seconds of calls whose sign-in was not accepted', () => {
    const rates = new Rates(ONE)
    const refused = Array.from({ length: 12 }, () => stranger(rates))
    expect(refused.filter((seconds) => seconds === undefined)).toHaveLength(10)
    expect(refused.at(-1)).toBe(1)
  })
  test('is refused before an answer is known: many at once do not slip through', () => {
    const rates = new Rates(ONE)
    for (let calls = 0; calls < 10; calls++) rates.enter(READ, 0)
    expect(refusedFor(() => rates.enter(READ, 0))).toBe(1)
  })
  test('pays nothing for calls whose sign-in was accepted', () => {
    const rates = new Rates({ ...ONE, reads: 0 })
    for (let calls = 0; calls < 100; calls++)
      rates.admit(rates.enter({ ...READ, proof: proofOf(`${calls}`) }, 0), 'vera', 0)
    expect(stranger(rates)).toBeUndefined()
  })
  test('pays for bodies that are refused before the sign-in is looked at', () => {
    const rates = new Rates(ONE)
    for (let calls = 0; calls < 10; calls++) rates.leave(rates.enter(READ, 0), 400)
    expect(refusedFor(() => rates.enter(READ, 0))).toBe(1)
  })
  test('pays for what is open to all, whatever it claims to be, and not for what a witness reads', () => {
    const open = { ...READ, route: 'GET /api/v1/openapi.json', authorization: 'x' }
    const rates = new Rates(ONE)
    for (let calls = 0; calls < 100; calls++)
      for (const route of WITNESSED) rates.leave(rates.enter({ ...READ, route }, 0), 200)
    for (let calls = 0; calls < 10; calls++) rates.leave(rates.enter(open, 0), 200)
    expect(refusedFor(() => rates.enter(open, 0))).toBe(1)
  })
  test('who signed in lately is not kept out by who floods from their address', () => {
    const rates = new Rates(ONE)
    rates.admit(rates.enter(READ, 0), 'vera', 0)
    flood(rates)
    expect(refusedFor(() => rates.enter({ ...READ, proof: proofOf('new') }, 0))).toBe(1)
    expect(refusedFor(() => rates.enter(READ, 0))).toBeUndefined()
  })
  test('nor when their token has run out and they come with the next one', () => {
    const rates = new Rates(ONE)
    rates.admit(rates.enter(READ, 0), 'vera', 0)
    flood(rates)
    rates.leave(rates.enter(READ, 0), 401)
    expect(refusedFor(() => rates.enter({ ...READ, authorization: 'DPoP b' }, 0))).toBeUndefined()
  })
  test('whatever the kind of their key, as Ed25519 without a y', () => {
    const rates = new Rates(ONE)
    const header = JSON.stringify({ jwk: { kty: 'OKP', crv: 'Ed25519', x: 'vera' } })
    const call = { ...READ, proof: `${Buffer.from(header).toString('base64url')}.e30.s` }
    rates.admit(rates.enter(call, 0), 'vera', 0)
    flood(rates)
    expect(refusedFor(() => rates.enter(call, 0))).toBeUndefined()
  })
  test('a stolen token without its key is nobody', () => {
    const rates = new Rates(ONE)
    rates.admit(rates.enter(READ, 0), 'vera', 0)
    flood(rates)
    for (const proof of [
      proofOf('thief'),
      'x',
      `${Buffer.from('null').toString('base64url')}.`,
      undefined,
    ])
      expect(refusedFor(() => rates.enter({ ...READ, proof }, 0))).toBe(1)
  })
  test('a key whose sign-in fails over and over is nobody again', () => {
    const rates = new Rates(ONE)
    rates.admit(rates.enter(READ, 0), 'vera', 0)
    flood(rates)
    const failed = Array.from({ length: 10 }, () => stranger(rates))
    expect(failed.filter((seconds) => seconds === undefined)).toHaveLength(5)
  })
  test('an operator behind it cuts all the same', () => {
    const rates = new Rates(ONE)
    flood(rates)
    expect(fill(rates, CUT, 'oda', 0)).toBe(Infinity)
  })
  test('is an IPv6 network, not one of its 2^64 addresses', () => {
    const rates = new Rates(ONE)
    for (let host = 0; host < 10; host++) stranger(rates, { address: `2001:db8::${host}` })
    expect(stranger(rates, { address: '2001:db8::ffff' })).toBe(1)
    expect(stranger(rates, { address: '2001:db8:0:1::1' })).toBeUndefined()
  })
})

test('of names beyond its room the oldest is forgotten, and a name that asks is not', () => {
  const allowance = new Allowance(1, 1, 2)
  expect(allowance.take('a', 0)).toBe(true)
  expect(allowance.take('b', 0)).toBe(true)
  expect(allowance.take('a', 0)).toBe(false)
  expect(allowance.take('c', 0)).toBe(true)
  expect([allowance.take('a', 0), allowance.take('b', 0)]).toEqual([false, true])
})

describe('the command line', () => {
  const answering = (answers: readonly [number, string | null][]) => {
    const left = [...answers]
    const waited: number[] = []
    const fetch = patient(
      async () => {
        const [status, after] = left.shift() ?? [200, null]
        return new Response('', { status, headers: after === null ? {} : { 'retry-after': after } })
      },
      async (ms) => void waited.push(ms),
    )
    return { fetch, waited }
  }
  const rows: readonly [string, [number, string | null][], number, number[]][] = [
    ['waits as long as it is told', [[429, '2'], [429, '1']], 200, [2_000, 1_000]],
    ['gives up after five times', Array.from({ length: 9 }, () => [429, '1']), 429, Array(5).fill(1_000)],
    ['waits no hour', [[429, '3600']], 429, []],
    ['waits for no date, and for nothing', [[429, 'Thu, 26 Nov 2026 14:00:00 GMT']], 429, []],
    ['takes another refusal as it is', [[503, '1']], 503, []],
  ] // prettier-ignore
  test.for(rows)('%s', async ([, answers, status, waits]) => {
    const { fetch, waited } = answering(answers)
    expect((await fetch('https://localhost/')).status).toBe(status)
    expect(waited).toEqual(waits)
  })
})

describe('a node', () => {
  let node: TestNode
  let vendor: Person
  let operator: Person
  beforeAll(async () => {
    node = await startNode({
      config: 'api_rates: { reads: 0.1, writes: 0.2, costly: 0, strangers: 0.5 }\n',
    })
    await node.device('press-07', { plc: expecting() })
    vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
    operator = await node.person('oda', { party: 'staff', roles: ['operator'] })
  })
  afterAll(async () => node[Symbol.asyncDispose]())

  /** Until it is refused: calls come back so slowly here that any machine is faster. */
  async function exhaust(call: () => Promise<{ status: number; body: Problem; headers: Headers }>) {
    for (;;) {
      const answer = await call()
      if (answer.status === 429) return answer
    }
  }

  test('every call that is named as cutting or costly is one', async () => {
    const { body } = await send<{ paths: Record<string, Record<string, unknown>> }>(node, {
      method: 'GET',
      path: '/api/v1/openapi.json',
    })
    const known = Object.entries(body.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map(
        (method) => `${method.toUpperCase()} ${path.replaceAll(/\{([a-z]+)\}/g, ':$1')}`,
      ),
    )
    expect(known).toEqual(expect.arrayContaining([...CUTTING, ...COSTLY]))
    expect(known.filter((route) => classOf(route) === 'cut')).toHaveLength(CUTTING.size)
  })

  test('refuses with a problem, says when, records it once, and cuts all the same', async () => {
    const asked = await vendor.ask<Grant>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 60,
      reason: 'service',
    })
    const from = node.size()
    const answer = await exhaust(async () => operator.call<Problem>('GET', '/sessions'))
    expect(answer.body.code).toBe('rate.identity')
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    await exhaust(async () => operator.call<Problem>('GET', '/sessions'))
    // Both of its budgets.
    await exhaust(async () =>
      operator.call<Problem>('POST', '/sessions', { device: 'x', process: 'y' }),
    )
    const cut = await operator.call<Session>('POST', `/grants/${asked.id}/revoke`, { reason: 'no' })
    expect(cut.status).toBe(200)
    await until('the record of it', () =>
      node.events(from).some(({ text }) => text.includes('api:rate')),
    )
    const told = node.events(from).filter(({ text }) => text.includes('api:rate'))
    expect(told.map(({ code }) => code)).toEqual(['admin.call'])
    expect(told[0]?.text).toContain('rate.identity')
    expect(told[0]?.text).toContain('oda@plant.example')
  })

  test('records no more refusals of cuts than are allowed, and an operator cuts meanwhile', async () => {
    const from = node.size()
    const lock = { scope: 'everything', reason: 'x' }
    const answer = await exhaust(async () => vendor.call<Problem>('POST', '/locks', lock))
    expect(answer.body.code).toBe('rate.identity')
    const refused = () => node.events(from).filter(({ text }) => text.includes('lock:create'))
    const before = refused().length
    expect(before).toBeGreaterThanOrEqual(30)
    expect(
      (await operator.call('POST', `/sessions/s_${'0'.repeat(26)}/cut`, { reason: 'x' })).status,
    ).toBe(404)
  })

  test('records no more cuts of what is not there than are allowed, and one that cuts something meanwhile', async () => {
    const robot = await node.person('olaf', { party: 'staff', roles: ['operator'] })
    const from = node.size()
    const asked = await vendor.ask<Grant>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 60,
      reason: 'x',
    })
    const nothing = `/sessions/s_${'0'.repeat(26)}/cut`
    const answer = await exhaust(async () => robot.call<Problem>('POST', nothing, { reason: 'x' }))
    expect([answer.status, answer.body.code]).toEqual([429, 'rate.identity'])
    const told = node.events(from).filter(({ text }) => text.includes('session:terminate'))
    expect(told.length).toBeGreaterThanOrEqual(30)
    const revoke = async () => robot.call('POST', `/grants/${asked.id}/revoke`, { reason: 'no' })
    expect((await revoke()).status).toBe(200)
  })

  test('nor of what is shut already, whoever asks for it in how many ways', async () => {
    const { admin } = node
    const guest = await node.person('ines', { party: 'staff', roles: ['operator'] })
    const [row] = node.rows('SELECT sub FROM account WHERE email = ?', guest.email)
    const account = `/accounts/${String(row?.['sub'])}`
    const lock = (target: string) => ({ scope: 'device', target, reason: 'x' })
    await admin.ask('POST', '/locks', lock('nowhere'))
    const nothing = `/sessions/s_${'0'.repeat(26)}/cut`
    await exhaust(async () => admin.call<Problem>('POST', nothing, { reason: 'x' }))
    // Its sign-ins end with it.
    expect((await admin.call('POST', `${account}/passkeys/remove`, {})).status).toBe(200)
    for (const [path, body] of [
      ['/locks', lock('nowhere')],
      [`${account}/passkeys/remove`, {}],
      [`${account}/totp/remove`, {}],
    ] as const) {
      const answer = await exhaust(async () => admin.call<Problem>('POST', path, body))
      expect([path, answer.body.code]).toEqual([path, 'rate.identity'])
    }
    expect((await admin.call('POST', '/locks', lock('elsewhere'))).status).toBe(201)
  })

  test('refuses the address of strangers, and neither who is signed in there nor who cuts', async () => {
    const stranger = async (path: string, method = 'GET') =>
      send(node, { method, path, ...(method === 'GET' ? {} : { body: {} }) })
    const answer = await exhaust(async () => stranger('/api/v1/info'))
    expect(answer.body.code).toBe('rate.source')
    await exhaust(async () => stranger('/api/v1/me'))
    await exhaust(async () => stranger('/api/v1/no-such-call'))
    expect((await stranger(`/api/v1/sessions/s_${'0'.repeat(26)}/end`, 'POST')).status).toBe(401)
    expect((await vendor.call('POST', `/grants/g_${'0'.repeat(26)}/done`)).status).toBe(404)
    expect((await vendor.call('GET', '/me')).status).toBe(200)
  })
})
