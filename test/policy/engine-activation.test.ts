/** What comes into force, what is refused and leaves the old one deciding, and what a bundle that has aged still decides. */
import { describe, expect, test } from 'vitest'
import { loadBundle, PolicyEngine, PolicyError, type Bundle, type Point } from '#policy'
import { ALLOW, bases, codes, decide, engineOf, open } from './deciding.ts'
import { archive, builtin, handmade, resultSet, withData, withModule } from './fixture.ts'

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
