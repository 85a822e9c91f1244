/** The engine against everything that can go wrong around it: it denies, says why, and goes on deciding. */
import { describe, expect, test } from 'vitest'
import {
  emptyInput,
  inputFor,
  POINT_NAMES,
  PolicyEngine,
  PolicyError,
  type Input,
  type Point,
} from '#policy'
import { judge } from '../../policy/judge.ts'
import { ALLOW, answer, bases, codes, decide, engineOf, open } from './deciding.ts'
import { builtin, handmade, resultSet, withModule } from './fixture.ts'

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
