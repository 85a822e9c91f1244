import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startFakeGateway, type FakeGateway } from './fake-gateway.ts'
import { run } from './run.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await startFakeGateway()
})
afterAll(async () => gateway[Symbol.asyncDispose]())

const G = `g_${'0'.repeat(26)}`
const grant = {
  id: G,
  hash: 'a'.repeat(64),
  state: 'requested',
  requester: 'https://localhost/oidc|1',
  requester_email: 'vera@pressmaker.example',
  vendor: 'Pressmaker',
  device: 'press-07',
  processes: ['plc'],
  duration_s: 120,
  not_before: 1_795_224_923,
  not_after: 1_795_311_323,
  first_used_at: null,
  expires_at: 1_795_311_323,
  ot_level: 1,
  reason: 'look',
  ticket: null,
  approvals: [],
  approvals_needed: 1,
  ended: null,
  created_at: 1_795_224_923,
}
const denied = {
  type: 'about:blank',
  title: 'Policy does not allow this',
  status: 403,
  code: 'grant.none',
  detail: 'no grant lets you use press-07/plc',
  next_step: 'ask for one: sallyport request press-07/plc',
  request_id: 'r_1',
  decision_id: 'd_1',
  denials: [
    { code: 'grant.none', msg: 'no grant lets you use press-07/plc' },
    { code: 'mfa.stale', msg: 'the sign-in is too old' },
  ],
}

describe('how a command ends', () => {
  test('help is not a failure', async () => {
    const ran = await run(gateway.home, '--help')
    expect(ran).toMatchObject({ code: 0, err: '' })
    for (const name of ['gateway', 'agent', 'login', 'device', 'request', 'connect', 'audit'])
      expect(ran.out).toMatch(new RegExp(`^  ${name}\\b`, 'm'))
  })
  test.for([
    ['an unknown command', ['frobnicate']],
    ['an unknown option', ['grants', '--frobnicate']],
    ['a missing argument', ['approve']],
    ['a missing option', ['request', 'press-07/plc']],
    ['a name that is none', ['device', 'show', 'Press_07']],
    ['an id that is none', ['approve', 'g_1']],
    ['a duration that is none', ['request', 'a/b', '--for', 'soon', '--reason', 'x']],
    ['a profile name that is none', ['--profile', '../..', 'whoami']],
  ] as const)('%s: exit 2, and nothing was asked of the gateway', async ([, args]) => {
    const before = gateway.calls.length
    const ran = await run(gateway.home, ...args)
    expect(ran.code).toBe(2)
    expect(ran.err).toMatch(/^(\u001b\[31m)?sallyport: /)
    expect(gateway.calls).toHaveLength(before)
  })
  test('nobody signed in: exit 4 with the next step', async () => {
    const ran = await run(gateway.home, '--profile', 'nobody', 'whoami')
    expect(ran.code).toBe(4)
    expect(ran.err).toContain('sallyport login --profile nobody')
  })
  test('denied: exit 3 with every sentence, the next step and the decision', async () => {
    gateway.answer('POST /api/v1/sessions', { status: 403, body: denied })
    const ran = await run(gateway.home, 'connect', 'press-07/plc', '--listen', '0')
    expect(ran.code).toBe(3)
    for (const text of ['grant.none', 'no grant lets you', 'mfa.stale', 'ask for one', 'd_1'])
      expect(ran.err).toContain(text)
  })
  test('denied, as JSON on stderr', async () => {
    gateway.answer('POST /api/v1/sessions', { status: 403, body: denied })
    const ran = await run(gateway.home, '--json', 'open', 'press-07/plc')
    expect(ran).toMatchObject({ code: 3, out: '' })
    expect(JSON.parse(ran.err)).toMatchObject({ error: { code: 'grant.none', id: 'd_1' } })
  })
  test('the sign-in not accepted: exit 4', async () => {
    gateway.answer('GET /api/v1/me', {
      status: 401,
      body: { ...denied, status: 401, code: 'identity.refused' },
    })
    expect((await run(gateway.home, 'whoami')).code).toBe(4)
  })
  test('an answer of another version is not guessed at', async () => {
    gateway.answer('GET /api/v1/grants', {
      body: { items: [{ ...grant, duration_s: 'two minutes' }] },
    })
    const ran = await run(gateway.home, 'grants')
    expect(ran).toMatchObject({ code: 1, out: '' })
    expect(ran.err).toContain('gateway.answer')
    expect(ran.err).toContain('/items/0/duration_s')
  })
  test('an answer that is no problem document still says its status', async () => {
    gateway.answer('GET /api/v1/devices', { status: 502, body: 'bad gateway' })
    const ran = await run(gateway.home, 'device', 'list')
    expect(ran.code).toBe(1)
    expect(ran.err).toContain('502')
  })
})

describe('what a command asks for', () => {
  test('a request for a grant', async () => {
    gateway.answer('POST /api/v1/grants', { status: 201, body: grant })
    const args = [
      '--for',
      '2m',
      '--reason',
      'look',
      '--ticket',
      'WO-1',
      '--until',
      '2027-01-01T00:00:00Z',
    ]
    const ran = await run(gateway.home, 'request', 'press-07/plc,hmi', ...args)
    expect(ran.code).toBe(0)
    expect(ran.out).toContain(`sallyport approve ${G}`)
    expect(gateway.calls.at(-1)?.body).toEqual({
      device: 'press-07',
      processes: ['plc', 'hmi'],
      duration_s: 120,
      reason: 'look',
      ticket: 'WO-1',
      not_after: 1_798_761_600,
    })
  })
  test('a request to write names its addresses, and reads back in words', async () => {
    const ot_windows = [{ unit: 1, from: 0, to: 9 }]
    gateway.answer('POST /api/v1/grants', {
      status: 201,
      body: { ...grant, ot_level: 2, ot_windows },
    })
    const args = ['request', 'press-07/plc', '--for', '2m', '--reason', 'look', '--write']
    const ran = await run(gateway.home, ...args, '--addresses', '1:0-9')
    expect(gateway.calls.at(-1)?.body).toMatchObject({ ot_level: 2, ot_windows })
    expect(ran.out).toContain('unit 1, registers and coils 0–9')
    expect(ran.out).toContain('the session ends with this grant')
    expect((await run(gateway.home, ...args)).code).toBe(2)
  })
  test('an approval names the statement that was read', async () => {
    gateway.answer('GET /api/v1/passkeys', { body: { items: [] } })
    gateway.answer(`GET /api/v1/grants/${G}`, { body: grant })
    gateway.answer(`POST /api/v1/grants/${G}/approve`, { body: { ...grant, state: 'approved' } })
    expect((await run(gateway.home, 'approve', G)).code).toBe(0)
    expect(gateway.calls.at(-1)?.body).toEqual({ hash: grant.hash })
  })
  test('an approval by passkey waits no longer than the grant does', async () => {
    const until = Math.floor(Date.now() / 1000) + 300
    const states = ['requested', 'rejected']
    const me = {
      id: 'https://localhost/oidc|2',
      email: null,
      party: 'staff',
      vendor: null,
      roles: [],
      groups: [],
      methods: [],
      authenticated_at: 1,
    }
    const passkey = {
      id: 'k',
      name: 'k',
      alg: 'ES256',
      spki: 'AA',
      synced: false,
      created_at: 1,
      used_at: null,
    }
    gateway.answer('GET /api/v1/me', { body: me })
    gateway.answer('GET /api/v1/passkeys', { body: { items: [passkey] } })
    gateway.answer(`GET /api/v1/grants/${G}`, () => ({
      body: { ...grant, state: states.shift() ?? 'rejected' },
    }))
    gateway.answer(`POST /api/v1/grants/${G}/approval`, {
      status: 201,
      body: { secret: 'x'.repeat(43), url: 'https://gate/x', expires_at: until, options: {} },
    })
    const ran = await run(gateway.home, 'approve', G)
    expect([ran.code, ran.err]).toEqual([1, expect.stringContaining('grant.state')])
  })
  test('every call carries a token bound to a key', async () => {
    gateway.answer('GET /api/v1/grants', { body: { items: [grant] } })
    await run(gateway.home, 'grants')
    expect(gateway.calls.at(-1)?.headers).toMatchObject({
      authorization: 'DPoP an-access-token',
      dpop: /^ey/,
    })
  })
  test('a revocation tells what it cut and how fast', async () => {
    const cut = { sessions: [{ id: 's_1', time_to_cut_ms: 3.25 }], slowest_ms: 3.25 }
    const ended = {
      ...grant,
      state: 'revoked',
      ended: { at: 1, by: 'x', reason: 'enough\u001b[2J' },
    }
    gateway.answer(`POST /api/v1/grants/${G}/revoke`, { body: { grant: ended, cut } })
    const ran = await run(gateway.home, 'revoke', G, '--reason', 'enough')
    expect(ran.out).toBe(`${G} is revoked: enough<001b>[2J\ncut s_1 in 3.3 ms\n`)
  })
  test('a login that could not be kept is asked of nobody', async () => {
    const home = join(gateway.home, 'a-file')
    writeFileSync(home, '')
    const before = gateway.calls.length
    const args = ['login', '--gateway', gateway.origin, '--ca-sha256', 'a'.repeat(64)]
    const ran = await run(home, ...args)
    expect([ran.code, ran.err]).toEqual([1, expect.stringContaining('credentials.unwritable')])
    expect(ran.err).toContain('SALLYPORT_HOME')
    expect(gateway.calls).toHaveLength(before)
  })
  test('JSON is one line that a program reads', async () => {
    gateway.answer('GET /api/v1/grants', { body: { items: [grant] } })
    const ran = await run(gateway.home, 'grants', '--json')
    expect(ran.err).toBe('')
    expect(
      ran.out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([[grant]])
  })
})

describe('a session through a local port', () => {
  const S = `s_${'0'.repeat(26)}`
  const opened = {
    id: S,
    device: 'press-07',
    process: 'plc',
    kind: 'modbus',
    grant: G,
    secret: Buffer.alloc(32, 7).toString('base64url'),
    expires_at: 1_795_225_043,
    remaining_ms: 120_000,
    decision_id: 'd_2',
    url: null,
  }
  const connect = ['connect', 'press-07/plc', '--listen', '127.0.0.1:0'] as const

  test('the gateway ends it: exit 6 with the reason', async () => {
    gateway.answer('POST /api/v1/sessions', { status: 201, body: opened })
    const accepted = gateway.tunnel()
    const running = run(gateway.home, ...connect, '--json')
    const { tunnel } = await accepted
    // It may come before the local port is open: the reason is told either way.
    tunnel.close('grant.revoked', 'work order withdrawn')
    const ran = await running
    expect(ran.code).toBe(6)
    expect(JSON.parse(ran.err)).toMatchObject({
      error: { code: 'grant.revoked', why: 'work order withdrawn' },
    })
    expect(ran.out + ran.err).not.toContain(opened.secret)
  })
  test('a port that is taken opens no session: it would count from here on', async () => {
    gateway.answer('POST /api/v1/sessions', { status: 201, body: opened })
    const before = gateway.calls.length
    const taken = `tcp:127.0.0.1:${gateway.port}`
    const ran = await run(gateway.home, 'connect', 'press-07/plc', '--listen', taken)
    expect(ran.code).toBe(1)
    expect(ran.err).toContain('listen.failed')
    expect(ran.err).toContain('choose another port with --listen')
    expect(gateway.calls.slice(before).map(({ path }) => path)).not.toContain('/api/v1/sessions')
  })
  test('a port that is taken by one transport is asked for by the other alone, and told as taken', async () => {
    const notUdp = {
      type: 'about:blank',
      title: 'The process is not used like this',
      status: 409,
      code: 'process.kind',
      detail: 'press-07/plc is reached by tcp, and its kind is modbus',
      request_id: 'r_1',
    }
    gateway.answer('POST /api/v1/sessions', { status: 409, body: notUdp })
    const taken = `127.0.0.1:${gateway.port}`
    const ran = await run(gateway.home, 'connect', 'press-07/plc', '--listen', taken)
    expect(gateway.calls.at(-1)?.body).toMatchObject({ uses: ['udp'] })
    expect([ran.code, ran.err]).toEqual([1, expect.stringContaining('listen.failed')])
  })
  test('a session that cannot be used is given back', async () => {
    gateway.answer('POST /api/v1/sessions', { status: 201, body: opened })
    gateway.refuseTunnel('session.unknown')
    const ran = await run(gateway.home, ...connect)
    expect(ran.code).toBe(6)
    expect(ran.err).toContain('session.unknown')
    expect(gateway.calls.at(-1)).toMatchObject({
      method: 'POST',
      path: `/api/v1/sessions/${S}/end`,
    })
  })
  test.for([
    ['weblog', /this session is recorded for auditors \(weblog\)/],
    ['flow', /what passes is not/],
  ] as const)('that is recorded as %s tells who opens it', async ([recording, said]) => {
    const web = { ...opened, kind: 'http', url: 'https://hmi--press-07.apps.test/', recording }
    gateway.answer('POST /api/v1/sessions', { status: 201, body: web })
    const ran = await run(gateway.home, 'open', 'press-07/hmi')
    expect([ran.code, ran.out]).toEqual([0, expect.stringMatching(said)])
    const plain = { ...web, recording: null }
    gateway.answer('POST /api/v1/sessions', { status: 201, body: plain })
    expect((await run(gateway.home, 'open', 'press-07/hmi')).out).not.toContain('recorded')
  })
  test('what is not used by ssh is told before a session is opened for it', async () => {
    const [type, title, code] = ['about:blank', 'The process is not used like this', 'process.kind']
    const detail = 'press-07/plc is reached by tcp, and its kind is modbus'
    const body = { type, title, status: 409, code, detail, request_id: 'r_1' }
    gateway.answer('POST /api/v1/sessions', { status: 409, body })
    const ran = await run(gateway.home, 'connect', 'plc--press-07.sallyport', '--stdio')
    expect(gateway.calls.at(-1)?.body).toMatchObject({ uses: ['ssh'] })
    expect([ran.code, ran.err]).toEqual([1, expect.stringContaining('process.kind')])
    expect(ran.err).toContain('sallyport connect press-07/plc --listen 127.0.0.1:0')
  })
  test('what is no web app is not opened in a browser', async () => {
    gateway.answer('POST /api/v1/sessions', {
      status: 409,
      body: {
        type: 'about:blank',
        title: 'The process is not used like this',
        status: 409,
        code: 'process.kind',
        detail: 'press-07/plc is reached by tcp, and its kind is modbus',
        request_id: 'r_1',
      },
    })
    const ran = await run(gateway.home, 'open', 'press-07/plc')
    expect(ran.code).toBe(1)
    expect(gateway.calls.at(-1)?.body).toMatchObject({ uses: ['app'] })
    expect(ran.err).toContain('reached by tcp')
    expect(ran.err).toContain('sallyport connect press-07/plc')
  })
})

describe('a process taken over from what was observed', () => {
  const listener = {
    phase: 'listener',
    exe: '/opt/press/plc-server',
    sha256: 'b'.repeat(64),
    uid: 998,
    unit: null,
    script_sha256: 'c'.repeat(64),
    image: null,
    pid: 4711,
    started_at: 1,
  }
  const process = {
    id: 'plc',
    device: 'press-07',
    kind: 'modbus',
    locality: 'device',
    port: null,
    expect: {},
    listener,
  }
  const device = {
    id: 'press-07',
    zone: 'main',
    state: 'active',
    labels: {},
    created_at: 1,
    connected: true,
    connected_at: 1,
    island: false,
    tls: null,
    certificate: null,
    agent_version: '0.1.0',
    drift: null,
    processes: [process],
  }
  const set = ['process', 'set', 'press-07/plc', '--kind', 'modbus', '--observed'] as const

  test('is shown, and approved with --yes', async () => {
    gateway.answer('GET /api/v1/devices/press-07', { body: device })
    gateway.answer('PUT /api/v1/devices/press-07/processes/plc', { body: process })
    const ran = await run(gateway.home, ...set, '--yes')
    expect(ran.code).toBe(0)
    expect(ran.err).toContain('/opt/press/plc-server')
    expect(gateway.calls.at(-1)?.body).toEqual({
      kind: 'modbus',
      expect: {
        sha256: ['b'.repeat(64)],
        exe: ['/opt/press/plc-server'],
        uid: [998],
        script_sha256: ['c'.repeat(64)],
      },
    })
  })
  test.for([
    ['a hash alone', { sha256: ['b'.repeat(64)] }, true],
    ['a path and a script', { exe: ['/usr/bin/python3'], script_sha256: ['c'.repeat(64)] }, true],
    ['a hash and a user', { sha256: ['b'.repeat(64)], uid: [998] }, false],
    ['a hash and a unit', { sha256: ['b'.repeat(64)], unit: ['plc.service'] }, false],
    ['an image', { image: [`sha256:${'d'.repeat(64)}`] }, false],
    ['nothing', {}, false],
  ] as const)('%s: whether any user can meet it is said', async ([, expected, says]) => {
    const row = { ...process, expect: expected }
    gateway.answer('PUT /api/v1/devices/press-07/processes/plc', { body: row })
    const ran = await run(gateway.home, 'process', 'set', 'press-07/plc')
    expect([ran.code, ran.err.includes('any user of the device')]).toEqual([0, says])
    const printed = await run(gateway.home, '--json', 'process', 'set', 'press-07/plc')
    expect(printed.err).toBe('')
  })
  test('is not approved where nobody can be asked', async () => {
    const before = gateway.calls.filter(({ method }) => method === 'PUT').length
    const ran = await run(gateway.home, ...set)
    expect(ran.code).toBe(2)
    expect(ran.err).toContain('--yes')
    expect(gateway.calls.filter(({ method }) => method === 'PUT')).toHaveLength(before)
  })
  test.for([
    [
      'a device that is not connected',
      { ...device, connected: false, processes: [] },
      /not connected/,
    ],
    [
      'nothing listening',
      { ...device, processes: [{ ...process, listener: null }] },
      /nothing listening/,
    ],
    [
      'an executable that could not be read',
      { ...device, processes: [{ ...process, listener: { ...listener, sha256: null } }] },
      /could not read/,
    ],
  ] as const)('%s is no baseline', async ([, body, why]) => {
    gateway.answer('GET /api/v1/devices/press-07', { body })
    const ran = await run(gateway.home, ...set, '--yes')
    expect(ran.code).toBe(1)
    expect(ran.err).toMatch(why)
  })
})

describe('secrets', () => {
  test('come from files, never from the command line', async () => {
    const { buildProgram } = await import('../../cli/main.ts')
    const all = [buildProgram()]
    for (const command of all) all.push(...command.commands)
    const flags = all.flatMap((command) => command.options.map(({ flags }) => flags))
    expect(flags.length).toBeGreaterThan(20)
    for (const flag of flags) {
      const secret = /--[a-z-]*(?:password|token|secret|private)(?![a-z-]*file)/.test(flag)
      expect(secret, flag).toBe(false)
    }
  })
  test('an account is added with the password of a file', async () => {
    const file = join(gateway.home, 'password')
    writeFileSync(file, 'correct horse battery\n')
    const account = {
      sub: '1',
      email: 'vera@pressmaker.example',
      name: 'Vera',
      party: 'vendor',
      vendor: 'Pressmaker',
      roles: ['vendor'],
      groups: [],
      disabled: false,
      idp: null,
      person: '1',
    }
    gateway.answer('POST /api/v1/accounts', { status: 201, body: account })
    const who = [
      '--email',
      account.email,
      '--name',
      'Vera',
      '--party',
      'vendor',
      '--vendor',
      'Pressmaker',
    ]
    const ran = await run(gateway.home, 'account', 'add', ...who, '--password-file', file)
    expect(ran.code).toBe(0)
    expect(gateway.calls.at(-1)?.body).toMatchObject({
      password: 'correct horse battery',
      roles: ['vendor'],
    })
    expect(ran.out + ran.err).not.toContain('correct horse')
  })
})
