/** Requests that are wrong around their body, who sends them, and when: the exact status, the code, and nothing changed. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bodyTooLarge, EST_BODY_LIMIT, instant, type EstRequest } from '#ca'
import { createCsr } from '#est'
import { basic, Bench, DAY, enrolling, HOUR, newKey, posting, TENANT } from './support.ts'

const good = createCsr(newKey(), { deviceId: 'press-07', tenant: TENANT })

/** One CA for all rows that must leave it as it was: they prove it by sharing it. */
let shared: Bench
beforeAll(async () => {
  shared = await Bench.open()
})
afterAll(() => shared[Symbol.asyncDispose]())

type Answer = readonly [status: number, code: string]

const big = Buffer.alloc(EST_BODY_LIMIT + 1, 0x41)
const get = (path: string): Partial<EstRequest> => ({ method: 'GET', path })

/** Requests that are wrong before their body counts. */
const requests: readonly (readonly [string, Partial<EstRequest>, ...Answer])[] = [
  ['an operation that is none', { path: '/.well-known/est/enroll' }, 404, 'path.unknown'],
  ['no operation', { path: '/.well-known/est/' }, 404, 'path.unknown'],
  [
    'an operation below an operation',
    { path: '/.well-known/est/a/b/simpleenroll' },
    404,
    'path.unknown',
  ],
  ['a path elsewhere', { path: '/simpleenroll' }, 404, 'path.unknown'],
  ['an operation in capitals', { path: '/.well-known/est/SimpleEnroll' }, 404, 'path.unknown'],
  ['a label that is none', { path: '/.well-known/est/toaster/simpleenroll' }, 404, 'label.unknown'],
  [
    'a profile that is no label',
    { path: '/.well-known/est/issuing/simpleenroll' },
    404,
    'label.unknown',
  ],
  [
    'a label of the prototype',
    { path: '/.well-known/est/constructor/simpleenroll' },
    404,
    'label.unknown',
  ],
  ['serverkeygen', { path: '/.well-known/est/serverkeygen' }, 404, 'operation.off'],
  ['fullcmc', { path: '/.well-known/est/fullcmc' }, 501, 'operation.unsupported'],
  ['GET simpleenroll', get('/.well-known/est/simpleenroll'), 405, 'method'],
  ['POST cacerts', { path: '/.well-known/est/cacerts' }, 405, 'method'],
  ['HEAD cacerts', { path: '/.well-known/est/cacerts', method: 'HEAD' }, 405, 'method'],
  ['no media type', { headers: {} }, 415, 'media_type'],
  [
    'another media type',
    { headers: { 'content-type': 'application/x-pem-file' } },
    415,
    'media_type',
  ],
  ['a body over the limit', { body: big }, 413, 'body.length'],
]

test.for(requests)('$0', async ([, change, status, code]) => {
  const before = [await shared.state(), shared.events.length]
  const answer = await shared.server()({ ...posting('simpleenroll', good), ...change })
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  expect([await shared.state(), shared.events.length]).toEqual(before)
})

test('405 names the right method; 401 challenges; 413 ends the connection', async () => {
  await using bench = await Bench.open()
  const serve = bench.server()
  const wrong = await serve({ ...posting('cacerts', good) })
  expect(wrong.headers['allow']).toBe('GET')
  const anonymous = await serve(posting('simpleenroll', good))
  expect(anonymous.headers['www-authenticate']).toBe('Basic realm="est", charset="UTF-8"')
  expect(bodyTooLarge('r')).toMatchObject({ status: 413, close: true })
})

/** Who asks is wrong: [name, authorization, status, code]. */
const strangers: readonly (readonly [string, string | undefined, ...Answer])[] = [
  ['no credential', undefined, 401, 'credential'],
  ['an unknown token', basic('spt_00000000000000000000000000000000'), 401, 'credential'],
  ['an empty password', basic(''), 401, 'credential'],
  ['another scheme', 'Bearer abc', 401, 'credential'],
  ['Basic that is not base64', 'Basic ***', 401, 'credential'],
  ['Basic without a colon', `Basic ${Buffer.from('abc').toString('base64')}`, 401, 'credential'],
  [
    'Basic that is not UTF-8',
    `Basic ${Buffer.from([0x3a, 0xff]).toString('base64')}`,
    401,
    'credential',
  ],
  ['a password of 600 bytes', basic('x'.repeat(600)), 401, 'credential'],
]

test.for(strangers)('$0: 401, one text, no state', async ([, authorization, status, code]) => {
  const bench = shared
  bench.events.length = 0
  const before = await bench.state()
  const headers = authorization === undefined ? {} : { authorization }
  const answer = await bench.server()(posting('simpleenroll', good, { headers }))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  if (authorization !== undefined)
    expect(answer.body).toBe(
      'credential: the token or password is not valid; ask an operator for a new token (request req-1)\n',
    )
  expect(await bench.state()).toEqual(before)
  expect(bench.events.map((event) => event.code)).toEqual(
    authorization === undefined ? [] : ['device.enroll'],
  )
})

test('a token one second too late, and at its exact end: 401; a second before: enrolled', async () => {
  await using bench = await Bench.open()
  const token = await bench.token('press-07', 3_600)
  const ends = bench.now + HOUR
  for (const [now, status] of [
    [ends + 1_000, 401],
    [ends, 401],
    [ends - 1_000, 200],
  ] as const) {
    bench.now = now
    expect((await bench.server()(enrolling(good, token))).status).toBe(status)
  }
})

test('a token with the name of another device as user: 401', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const serve = bench.server()
  const as = (user: string) =>
    serve(posting('simpleenroll', good, { headers: { authorization: basic(token, user) } }))
  expect((await as('press-08')).status).toBe(401)
  expect((await as('press-07')).status).toBe(200)
})

test('a revoked token: 401', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const [row] = await bench.store.listTokens(TENANT)
  await bench.store.revokeToken(TENANT, row!.id, instant(bench.now))
  expect((await bench.server()(enrolling(good, token))).status).toBe(401)
})

test('a used token with another key: 403 token.bound, the first key is still served', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const serve = bench.server()
  const first = await serve(enrolling(good, token))
  const before = await bench.state()
  const other = createCsr(newKey(), { deviceId: 'press-07', tenant: TENANT })
  const refused = await serve(enrolling(other, token))
  expect([refused.status, refused.body.split(':', 1)[0]]).toEqual([403, 'token.bound'])
  expect(await serve(enrolling(good, token))).toEqual(first)
  expect({ ...(before as object), issued: 2 }).toEqual(await bench.state())
})

const states = [
  ['revoked', 403, 'device.state'],
  ['retired', 403, 'device.state'],
] as const
test.for(states)('a device that is $0', async ([state, status, code]) => {
  await using bench = await Bench.open()
  const token = await bench.token()
  bench.devices.set('press-07', { id: 'press-07', zone: 'hall-a', state })
  const before = await bench.state()
  const answer = await bench.server()(enrolling(good, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  expect(await bench.state()).toEqual(before)
})

test('a device that is not there', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  bench.devices.clear()
  const answer = await bench.server()(enrolling(good, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'device.unknown'])
})

test('policy says no: 403 with its reasons, no state; the token is not spent', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const before = await bench.state()
  bench.decision = {
    allow: false,
    denials: [{ code: 'enroll.zone', msg: 'the token is for another zone' }],
    decision_id: 'd_no',
    obligations: {},
  }
  const answer = await bench.server()(enrolling(good, token))
  expect(answer.status).toBe(403)
  expect(answer.body).toBe(
    'policy.denied: enroll.zone (the token is for another zone); ask the operator of this gateway (decision d_no, request req-1)\n',
  )
  expect(await bench.state()).toEqual(before)
  expect(bench.events).toMatchObject([
    { outcome: 'refused', denials: ['enroll.zone'], decisionId: 'd_no' },
  ])
})

test('policy wants an approval: 202 with Retry-After, no state', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  bench.decision = {
    allow: false,
    denials: [{ code: 'enroll.approval', msg: 'somebody must approve', remedy: 'approve' }],
    decision_id: 'd_wait',
    obligations: {},
  }
  const answer = await bench.server()(enrolling(good, token))
  expect(answer.status).toBe(202)
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(300)
  expect(bench.events).toMatchObject([{ outcome: 'pending', reason: 'policy.pending' }])
})

const outages = [
  [
    'the policy',
    'decision.unavailable',
    (bench: Bench) => void (bench.decision = new Error('gone')),
  ],
  ['the log', 'log.unavailable', (bench: Bench) => void (bench.logFails = true)],
  ['the store', 'store.unavailable', (bench: Bench) => bench[Symbol.asyncDispose]()],
] as const
test.for(outages)('$0 is down: 503, Retry-After, nothing issued', async ([, code, break_]) => {
  await using bench = await Bench.open()
  const token = await bench.token()
  await break_(bench)
  const answer = await bench.server()(enrolling(good, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, code])
  expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
  expect(bench.issued).toEqual([])
  expect(bench.failures).toEqual([code])
})

test('31 wrong tokens from one address: 429 there, and nowhere else', async () => {
  await using bench = await Bench.open()
  const serve = bench.server()
  const wrong = enrolling(good, 'spt_wrong')
  for (let i = 0; i < 30; i++) expect((await serve(wrong)).status).toBe(401)
  const answer = await serve(enrolling(good, await bench.token()))
  expect([answer.status, answer.close]).toEqual([429, true])
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(60)
  const elsewhere = enrolling(good, await bench.token(), { remoteAddress: '192.0.2.8' })
  expect((await serve(elsewhere)).status).toBe(200)
  bench.now += 60_000
  expect((await serve(wrong)).status).toBe(401)
})

test('a clock that is set back a year makes nobody wait for that year', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ requestsPerMinute: 40 })
  const wrong = enrolling(good, 'spt_wrong')
  for (let i = 0; i < 30; i++) await serve(wrong)
  bench.now -= 365 * DAY
  expect((await serve(wrong)).status).toBe(401)
  // The window of today counts as before.
  for (let i = 0; i < 29; i++) await serve(wrong)
  expect((await serve(wrong)).status).toBe(429)
})
