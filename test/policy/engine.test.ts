/** The engine against everything that can go wrong around it: it denies, says why, and goes on deciding. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { emptyInput, inputFor, loadBundle, POINT_NAMES, PolicyEngine, PolicyError } from '#policy'
import type { Bundle, Decision, Input, Point } from '#policy'
import { judge } from '../../policy/judge.ts'
import { baseInputs } from '../../policy/toolchain/vectors.ts'
import { archive, builtin, handmade, resultSet, withData, withModule } from './fixture.ts'
import type { Handmade } from './fixture.ts'

const bases = await baseInputs()
const open = bases['session.open']

async function engineOf(bundle: Bundle): Promise<PolicyEngine> {
  const engine = PolicyEngine.unavailable({ now: () => performance.now() })
  await engine.activate(bundle)
  return engine
}

function decide(engine: PolicyEngine, input: Input, point: Point = 'session.open'): Decision {
  return engine.decide(point, input, { decisionId: 'd_1' })
}

function codes(decision: Decision): string[] {
  return decision.denials.map(({ code }) => code)
}

async function answer(evaluation: Handmade['evaluation']): Promise<Decision> {
  return decide(await engineOf(withModule(handmade({ evaluation }))), open)
}

const ALLOW = {
  v: 1,
  effect: 'allow',
  allow: true,
  reasons: [{ code: 'x' }],
  denials: [],
  obligations: {},
}

test('without a policy everything is denied, at every point', () => {
  const engine = PolicyEngine.unavailable()
  for (const point of POINT_NAMES) {
    const decision = decide(engine, bases[point], point)
    expect(decision.allow).toBe(false)
    expect(codes(decision)).toEqual(['policy.unavailable'])
    expect(decision.layer).toBe('host')
    expect(decision.revision).toBeNull()
    expect(decision.eval_us).toBeNull()
  }
  expect(engine.status().state).toBe('unavailable')
})

test('the built-in policy decides, and says by which revision', async () => {
  const engine = await engineOf(builtin)
  const decision = decide(engine, open)
  expect(decision).toMatchObject({
    v: 1,
    effect: 'allow',
    allow: true,
    decision_id: 'd_1',
    arm: 'active',
  })
  expect(decision.revision).toBe('builtin-1')
  expect(decision.data_digest).toMatch(/^[0-9a-f]{64}$/)
  expect(decision.eval_us).toBeGreaterThanOrEqual(0)
  expect(decision.obligations.processes).toEqual(['plc'])
  expect(engine.status()).toMatchObject({ state: 'active', decisions: 1, errors: 0, rebuilds: 0 })
})

test('an input about which nothing is known is denied at every point', async () => {
  const engine = await engineOf(builtin)
  for (const point of POINT_NAMES) {
    expect(codes(decide(engine, emptyInput(point), point))).toEqual(['input.invalid'])
    const timed = inputFor(point, { time: { epoch_s: 1795082400 } })
    expect(decide(engine, timed, point).allow).toBe(false)
  }
})

describe('what is not an input', () => {
  const rows: [string, unknown][] = [
    ['null', null],
    ['zero', 0],
    ['false', false],
    ['an empty string', ''],
    ['undefined', undefined],
    ['a Buffer', Buffer.from('{}')],
    ['an ArrayBuffer', new ArrayBuffer(2)],
    ['a list', [open]],
    ['JSON text', JSON.stringify(open)],
    ['an input of another point', bases['grant.request']],
    ['a missing key', (({ locks: _, ...rest }) => rest)(open)],
    ['an extra key', { ...open, root: true }],
    [
      'a __proto__ key',
      JSON.parse(`${JSON.stringify(open).slice(0, -1)},"__proto__":{"allow":true}}`),
    ],
    ['a prototype of its own', Object.create(open)],
    ['a key of the wrong type', { ...open, device: { ...open.device, state: 7 } }],
    ['an unknown state', { ...open, device: { ...open.device, state: 'trusted' } }],
    ['NaN', { ...open, time: { ...open.time, epoch_s: Number.NaN } }],
    ['a number above 2^53', { ...open, time: { ...open.time, epoch_s: 2 ** 53 } }],
    ['a fraction of a second', { ...open, time: { ...open.time, epoch_s: 1.5 } }],
    ['a string with NUL', { ...open, request_id: 'a\0b' }],
    [
      'a string over its limit',
      { ...open, subject: { ...open.subject, issuer: 'x'.repeat(1025) } },
    ],
    [
      'a claim of a megabyte',
      { ...open, subject: { ...open.subject, claims: { a: 'x'.repeat(1e6) } } },
    ],
    ['a claim with depth', { ...open, subject: { ...open.subject, claims: { a: { b: 1 } } } }],
    [
      '257 groups',
      { ...open, subject: { ...open.subject, groups: Array.from({ length: 257 }, String) } },
    ],
    ['33 grants', { ...open, grants: Array.from({ length: 33 }, () => open.grants[0]) }],
    [
      'more than 16 KB',
      {
        ...open,
        subject: { ...open.subject, groups: Array.from({ length: 256 }, () => 'é'.repeat(60)) },
      },
    ],
    ['a hole in a list', { ...open, locks: [undefined] }],
    ['an address that is none', { ...open, client: { ...open.client, ip: '300.1.1.1' } }],
    ['no time', { ...open, time: { ...open.time, epoch_s: null } }],
    ['no process', { ...open, process: null }],
    [
      'a getter that throws',
      {
        ...open,
        get locks() {
          throw new Error('gotcha')
        },
      },
    ],
    ['a value that prints as something else', { ...open, request_id: { toJSON: () => 'r' } }],
  ]
  test.for(rows)('%s', async ([, input]) => {
    const engine = await engineOf(builtin)
    const decision = decide(engine, input as Input)
    expect(decision.allow).toBe(false)
    expect(codes(decision)).toEqual(['input.invalid'])
    expect(engine.status()).toMatchObject({ errors: 0, rebuilds: 0 })
    expect(decide(engine, open).allow).toBe(true)
  })

  test('a nest of 100,000 objects', async () => {
    let nest: unknown = {}
    for (let at = 0; at < 100_000; at++) nest = { nest }
    const engine = await engineOf(builtin)
    expect(codes(decide(engine, { ...open, client: nest } as Input))).toEqual(['input.invalid'])
  })

  test('a point that is none', async () => {
    const engine = await engineOf(builtin)
    for (const point of ['session.close', '__proto__', 'toString', ''])
      expect(codes(decide(engine, open, point as Point))).toEqual(['input.invalid'])
  })

  test('anything at all', async () => {
    const engine = await engineOf(builtin)
    fc.assert(
      fc.property(fc.anything(), fc.constantFrom(...POINT_NAMES), (input, point) => {
        expect(decide(engine, input as Input, point).allow).toBe(false)
      }),
      { numRuns: 300 },
    )
  })
})

describe('what is odd and still an input', () => {
  test('a lone surrogate is replaced, not thrown at the module', async () => {
    const engine = await engineOf(builtin)
    const subject = { ...open.subject, email: '\ud800x', claims: { '\udc00': 'a\udfff' } }
    expect(decide(engine, { ...open, subject }).allow).toBe(true)
    expect(engine.status().errors).toBe(0)
  })

  test('an identity with a lone surrogate is not the identity without it', async () => {
    const engine = await engineOf(builtin)
    const subject = { ...open.subject, id: `${open.subject.id}\ud800` }
    expect(codes(decide(engine, { ...open, subject }))).toEqual(['grant.none'])
  })

  test('an IPv4-mapped address is the IPv4 address', async () => {
    const site = structuredClone(builtin.data) as {
      site: { zones: { default: { client_cidrs: string[] } } }
    }
    site.site.zones.default.client_cidrs = ['198.51.100.0/24']
    const engine = await engineOf(withData(site))
    for (const ip of [
      '198.51.100.7',
      '::ffff:198.51.100.7',
      '::FFFF:c633:6407',
      '198.51.100.7:4711',
    ])
      expect(decide(engine, { ...open, client: { ...open.client!, ip } }).allow, ip).toBe(true)
    for (const ip of ['198.51.101.7', '::ffff:198.51.101.7', '::198.51.100.7'])
      expect(codes(decide(engine, { ...open, client: { ...open.client!, ip } })), ip).toEqual([
        'client.network',
      ])
  })

  test('claims named like parts of an object', async () => {
    const engine = await engineOf(builtin)
    const claims = JSON.parse('{"__proto__":"a","constructor":"b","toString":"c"}') as Record<
      string,
      string
    >
    expect(decide(engine, { ...open, subject: { ...open.subject, claims } }).allow).toBe(true)
  })
})

describe('a module that answers', () => {
  const rows: [string, string, string][] = [
    ['nothing', '[]', 'policy.error'],
    ['no result set', '{}', 'policy.error'],
    ['two results', '[{"result":1},{"result":2}]', 'policy.error'],
    ['true', resultSet(true), 'policy.error'],
    ['an allow and no more', resultSet({ allow: true }), 'policy.error'],
    ['an effect it does not have', resultSet({ ...ALLOW, effect: 'permit' }), 'policy.error'],
    ['allow beside effect deny', resultSet({ ...ALLOW, effect: 'deny' }), 'policy.error'],
    ['an allow without reason', resultSet({ ...ALLOW, reasons: [] }), 'policy.error'],
    ['a reason without code', resultSet({ ...ALLOW, reasons: [{}] }), 'policy.error'],
    [
      'an allow with a denial',
      resultSet({ ...ALLOW, denials: [{ code: 'a', msg: 'b' }] }),
      'policy.error',
    ],
    [
      'a deny without denial',
      resultSet({ ...ALLOW, effect: 'deny', allow: false }),
      'policy.error',
    ],
    [
      'a challenge that nothing answers',
      resultSet({
        ...ALLOW,
        effect: 'challenge',
        allow: false,
        denials: [{ code: 'a', msg: 'b' }],
      }),
      'policy.error',
    ],
    ['another version', resultSet({ ...ALLOW, v: 2 }), 'policy.error'],
    ['an unknown key', resultSet({ ...ALLOW, sudo: true }), 'policy.error'],
    [
      'an obligation nobody knows',
      resultSet({ ...ALLOW, obligations: { colour: 1 } }),
      'obligation.unsupported',
    ],
    [
      'an obligation named __proto__',
      '[{"result":{"v":1,"effect":"allow","allow":true,"reasons":[{"code":"x"}],"denials":[],"obligations":{"__proto__":1}}}]',
      'obligation.unsupported',
    ],
    ['a number as text', resultSet({ ...ALLOW, obligations: { max_bytes: '1' } }), 'policy.error'],
    ['a negative number', resultSet({ ...ALLOW, obligations: { max_bytes: -1 } }), 'policy.error'],
    ['null for a flag', resultSet({ ...ALLOW, obligations: { record: null } }), 'policy.error'],
    [
      'other processes only',
      resultSet({ ...ALLOW, obligations: { processes: [] } }),
      'policy.error',
    ],
    ['broken JSON', '[{"result":', 'policy.error'],
  ]
  test.for(rows)('%s', async ([, evaluation, code]) => {
    const decision = await answer(evaluation)
    expect(decision.allow).toBe(false)
    expect(codes(decision)).toEqual([code])
  })

  test('an allow with every obligation absent: the strict defaults', async () => {
    const decision = await answer(resultSet(ALLOW))
    expect(decision.allow).toBe(true)
    expect(decision.obligations).toEqual({
      max_duration_s: 3600,
      not_after: 1795086000,
      idle_timeout_s: 900,
      reeval_after_s: 300,
      max_bandwidth_bps: 10_000_000,
      max_bytes: 268_435_456,
      max_streams: 8,
      ot_level: 1,
      approvals: 1,
      record: true,
      justification: true,
      supervise: true,
      notify: true,
      ot_each: true,
      processes: ['plc'],
      methods: ['GET', 'HEAD'],
      ot_windows: [],
    })
  })

  test('more than the ceilings: the ceilings', async () => {
    const huge = Number.MAX_SAFE_INTEGER
    const keys = [
      'max_duration_s',
      'not_after',
      'idle_timeout_s',
      'reeval_after_s',
      'max_bytes',
      'ot_level',
    ]
    const obligations = Object.fromEntries(keys.map((key) => [key, huge]))
    const decision = await answer(resultSet({ ...ALLOW, obligations }))
    expect(decision.obligations).toMatchObject({
      max_duration_s: 43_200,
      not_after: 1795082400 + 43_200,
      idle_timeout_s: 14_400,
      reeval_after_s: 900,
      max_bytes: 68_719_476_736,
      // Writing without addresses to write to is reading.
      ot_level: 1,
    })
  })

  test('policy.no_match comes after what explains more', async () => {
    const denials = ['a', 'policy.no_match', 'z'].map((code) => ({ code, msg: 'm' }))
    const decision = await answer(resultSet({ ...ALLOW, effect: 'deny', allow: false, denials }))
    expect(codes(decision)).toEqual(['a', 'z', 'policy.no_match'])
  })
})

describe('a module that fails', () => {
  test.for(['trap', 'abort', 'builtin', 'grow'] as const)('%s', async (evaluation) => {
    const wasm = handmade({ evaluation })
    const engine = await engineOf(withModule(wasm))
    for (let at = 1; at <= 5; at++) {
      const decision = decide(engine, open)
      expect(codes(decision)).toEqual(['policy.error'])
      expect(decision.layer).toBe('host')
      expect(engine.status()).toMatchObject({ errors: at, rebuilds: at })
    }
  })
})

describe('host invariants hold whatever the policy says', () => {
  const rows: [string, Point, (input: Input) => Input, string][] = [
    ['no tenant', 'session.open', (input) => ({ ...input, tenant: null }), 'host.tenant'],
    [
      'no identity',
      'session.open',
      (input) => ({ ...input, subject: { ...input.subject, id: null } }),
      'host.identity',
    ],
    [
      'an ended sign-in',
      'admin.api',
      (input) => ({ ...input, subject: { ...input.subject, token_exp: 1 } }),
      'host.identity',
    ],
    [
      'no process id',
      'session.open',
      (input) => ({ ...input, process: { ...input.process!, id: null } }),
      'host.process_unregistered',
    ],
    [
      'another device’s tunnel',
      'tunnel.connect',
      (input) => ({ ...input, tunnel: { ...input.tunnel!, peer_device_id: 'press-08' } }),
      'host.tunnel_peer',
    ],
    [
      'one’s own request',
      'grant.approve',
      (input) => ({
        ...input,
        subject: { ...input.subject, id: input.approval!.grant!.requester },
      }),
      'host.approver_is_requester',
    ],
  ]
  test.for(rows)('%s', async ([, point, change, code]) => {
    const engine = await engineOf(withModule(handmade({ evaluation: resultSet(ALLOW) })))
    expect(decide(engine, bases[point], point).allow).toBe(true)
    const decision = decide(engine, change(bases[point]), point)
    expect(codes(decision)).toEqual([code])
    expect(decision.layer).toBe('host')
  })

  test('what the gateway found itself is a decision too', async () => {
    const engine = await engineOf(builtin)
    const decision = engine.refuse('host.process_unregistered', { decisionId: 'd_9', ref: 'plc' })
    expect(decision).toMatchObject({
      allow: false,
      effect: 'deny',
      layer: 'host',
      decision_id: 'd_9',
    })
    expect(decision.denials[0]).toMatchObject({ code: 'host.process_unregistered', ref: 'plc' })
  })
})

describe('activation', () => {
  const rows: [string, () => Bundle, string][] = [
    ['no module at all', () => withModule(new Uint8Array([1, 2, 3])), 'module.invalid'],
    ['another ABI', () => withModule(handmade({ evaluation: '[]', abi: 2 })), 'module.abi'],
    [
      'an older minor ABI',
      () => withModule(handmade({ evaluation: '[]', minor: 1 })),
      'module.abi',
    ],
    [
      'a builtin this host lacks',
      () => withModule(handmade({ evaluation: '[]', builtins: ['http.send'] })),
      'module.builtin',
    ],
    [
      'a builtin the SDK would have provided',
      () => withModule(handmade({ evaluation: '[]', builtins: ['sprintf'] })),
      'module.builtin',
    ],
    [
      'an entry point missing',
      () =>
        withModule(
          handmade({ evaluation: '[]', entrypoints: ['sallyport/session/open/decision'] }),
        ),
      'module.entrypoint',
    ],
    [
      'data the module refuses',
      () => withModule(handmade({ evaluation: '[]', refusesData: true })),
      'module.data',
    ],
    ['data without zones', () => withData({ site: {} }), 'data.schema'],
    [
      'data under a code root',
      () => withData({ site: (builtin.data as { site: unknown }).site, policy: {} }),
      'data.schema',
    ],
    [
      'a vector of its own that comes out otherwise',
      () => ({
        ...builtin,
        vectors: builtin.vectors.map((vector) => ({ ...vector, effect: 'deny' })),
      }),
      'smoke.failed',
    ],
    [
      'a module that traps on its vectors',
      () => ({ ...builtin, wasm: handmade({ evaluation: 'trap' }) }),
      'module.eval',
    ],
  ]
  test.for(rows)('refuses %s; the old bundle goes on deciding', async ([, bundle, code]) => {
    const engine = await engineOf(builtin)
    const refusal = await engine.activate(bundle()).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(PolicyError)
    expect((refusal as PolicyError).code).toBe(code)
    expect(engine.status()).toMatchObject({ revision: 'builtin-1', last_failure: { code } })
    expect(decide(engine, open).allow).toBe(true)
  })

  test('swaps between two decisions', async () => {
    const engine = await engineOf(builtin)
    expect(decide(engine, open).allow).toBe(true)
    const denials = [{ code: 'closed', msg: 'closed' }]
    const none = handmade({
      evaluation: resultSet({ ...ALLOW, effect: 'deny', allow: false, denials }),
    })
    await engine.activate({ ...withModule(none), revision: 'next' })
    expect(decide(engine, open)).toMatchObject({ allow: false, revision: 'next' })
    await engine.activate(builtin)
    expect(decide(engine, open)).toMatchObject({ allow: true, revision: 'builtin-1' })
    expect(engine.status().last_failure).toBeNull()
  })

  test('decides while the next bundle is being looked at', async () => {
    const engine = await engineOf(builtin)
    const next = engine.activate(await loadBundle(archive, { trust: 'builtin', highWater: null }))
    expect(decide(engine, open).allow).toBe(true)
    await next
    expect(decide(engine, open).allow).toBe(true)
  })
})

test('twenty thousand decisions take no more memory than one', { timeout: 120_000 }, async () => {
  const engine = await engineOf(builtin)
  for (let at = 0; at < 2000; at++) decide(engine, open)
  const before = process.memoryUsage().arrayBuffers
  for (let at = 0; at < 20_000; at++) decide(engine, open)
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 1024 * 1024)
})

test('a start with the clock a day back: what was given since then is not there yet', async () => {
  const engine = await engineOf(builtin)
  const time = { ...open.time, epoch_s: open.time.epoch_s! - 86_400 }
  for (const point of ['session.open', 'session.reevaluate', 'ot.verb', 'http.request'] as const) {
    const decision = decide(engine, { ...bases[point], time }, point)
    expect([point, decision.allow, codes(decision)[0]]).toEqual([point, false, 'grant.not_yet'])
  }
})

describe('a stale bundle', () => {
  const aged = { ...builtin, issuedAt: open.time.epoch_s! - 60, maxAgeSeconds: 60, vectors: [] }
  const rows: ['warn' | 'deny_new' | 'deny_all', Point, number, boolean][] = [
    ['warn', 'session.open', 0, true],
    ['deny_new', 'session.open', 1, true],
    ['deny_new', 'session.open', 0, false],
    ['deny_new', 'session.open', -1, false],
    ['deny_new', 'grant.request', 0, false],
    ['deny_new', 'session.reevaluate', 0, true],
    ['deny_new', 'tunnel.connect', 0, true],
    ['deny_all', 'session.reevaluate', 1, true],
    ['deny_all', 'session.reevaluate', 0, false],
    ['deny_all', 'tunnel.connect', 0, false],
    ['deny_all', 'admin.api', 0, true],
  ]
  test.for(rows)('%s at %s, %i s before its end: %s', async ([staleness, point, left, allow]) => {
    const engine = PolicyEngine.unavailable({ staleness })
    await engine.activate({ ...aged, issuedAt: aged.issuedAt + left })
    const decision = decide(engine, bases[point], point)
    expect(decision.allow).toBe(allow)
    expect(codes(decision)).toEqual(allow ? [] : ['policy.stale'])
    expect(engine.status().stale_at).toBe(open.time.epoch_s! + left)
  })

  test('a bundle without an age is never stale; without a word it is deny_new', async () => {
    const engine = await engineOf({ ...aged, maxAgeSeconds: 0 })
    expect(decide(engine, open).allow).toBe(true)
    expect(engine.status().stale_at).toBeNull()
    await engine.activate(aged)
    expect(codes(decide(engine, open))).toEqual(['policy.stale'])
  })

  test('a clock that was set back to before it was issued: its age is not known, and that is no youth', async () => {
    const at = (ahead: number) => ({ ...aged, issuedAt: open.time.epoch_s! + ahead })
    const engine = await engineOf(at(3600))
    expect(decide(engine, open).allow).toBe(true)
    await engine.activate(at(3601))
    expect(codes(decide(engine, open))).toEqual(['policy.stale'])
    expect(decide(engine, bases['admin.api'], 'admin.api').allow).toBe(true)
  })

  test('what the policy denies keeps its own code', async () => {
    const engine = await engineOf(aged)
    expect(codes(decide(engine, { ...open, grants: [] }))).toEqual(['grant.none'])
  })
})

test('the guard is told of every evaluation and its end, failed ones too', async () => {
  const seen: string[] = []
  const guard = { enter: () => seen.push('enter'), leave: () => seen.push('leave') }
  const engine = PolicyEngine.unavailable({ guard })
  await engine.activate(withModule(handmade({ evaluation: 'trap' })))
  decide(engine, open)
  expect(seen).toEqual(['enter', 'leave'])
})

test.for([
  ['the memory that moved', new PolicyError('module.eval', 'the memory moved')],
  ['a trap', new WebAssembly.RuntimeError('unreachable')],
])('%s while an input is placed is the module’s fault, not the input’s', ([, fault]) => {
  const rules = {
    encode: () => {
      throw fault as Error
    },
    evaluate: () => [],
  }
  expect(() => judge(rules, 'session.open', emptyInput('session.open'))).toThrow(fault as Error)
})
