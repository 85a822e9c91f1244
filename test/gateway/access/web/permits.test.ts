/** What a web request's answer stands on, and whose answer else it may be: for one second, and only while nothing changes. */
import { describe, expect, test, vi } from 'vitest'
import { Permits } from '../../../../gateway/access/permits.ts'
import type { WebQuestion } from '../../../../gateway/access/ground.ts'
import { Decisions } from '../../../../gateway/decisions.ts'
import { LiveSession, type LiveSessionOptions } from '../../../../gateway/sessions/live.ts'

type Event = {
  readonly message: string
  readonly status: string
  readonly reason?: string
  readonly data: { readonly path?: string; readonly count?: number }
}

const START = 1_700_000_000_000
const obligations = {
  max_streams: 8,
  max_bandwidth_bps: 8,
  not_after: 9e12,
  idle_timeout_s: 900,
  reeval_after_s: 300,
  methods: ['GET', 'HEAD', 'POST'],
  supervise: false,
  record: false,
  notify: false,
  ot_each: false,
  ot_level: 0,
  ot_windows: [],
}
const authn = { methods: [], acr: null, at: null }
const subject = { id: 'p_vera', email: null, vendor: null, party: 'vendor', authn, token_exp: 9e12 }
const source = { ip: '10.0.0.1', tls: { version: 'TLSv1.3', cipher: 'TLS_AES_256_GCM_SHA384' } }
const page: WebQuestion = { method: 'GET', host: 'hmi', path: '/page', source, reads: true }

const tunnel = () => ({
  listeners: new Map(),
  agent: { version_int: 1000 },
  peer: { serial: '01', notAfter: 9e15 },
  tls: null,
})

/** A session at a gateway whose policy, store, registry and clock the row holds in its hand. */
function gateway() {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const here = {
    now: START,
    policy: 'r1',
    presence: tunnel() as ReturnType<typeof tunnel> | undefined,
    cutOff: false,
    allow: true,
    supervise: false,
    /** Before the store answers. */
    looking: (): unknown => undefined,
    /** Before the log has it. */
    logging: (): unknown => undefined,
    asked: [] as string[],
    looks: 0,
    log: [] as Event[],
    reported: 0,
  }
  const session = new LiveSession({
    id: 's_1',
    grant: 'g_1',
    device: 'press-07',
    process: 'hmi',
    kind: 'http',
    subject,
    source,
    obligations,
    presence: { peer: { notAfter: 9e15 } },
    decision: { id: 'd_0', revision: 'r1', codes: [] },
    openedAt: START,
    expiresAt: 9e15,
  } as unknown as LiveSessionOptions)
  session.advance('recorded')
  const statement = { id: 'g_1', requester: 'p_vera', devices: ['press-07'], processes: ['hmi'] }
  const found = {
    device: { id: 'press-07', labels: {} },
    process: { kind: 'http', expect: {} },
    grant: { statement, state: 'active', approvals: [], extension: null, first_used_at: 1 },
  }
  const room = {
    live: new Map([[session.id, session]]),
    now: () => here.now,
    report: () => here.reported++,
    registry: { find: () => here.presence, isCutOff: () => here.cutOff },
    devices: {
      async find() {
        here.looks++
        await here.looking()
        return found.device
      },
      findProcess: async () => await Promise.resolve(found.process),
    },
    grants: { find: async () => await Promise.resolve(found.grant) },
    decisions: {
      ask(_point: string, facts: { http: { path: string } }) {
        here.asked.push(facts.http.path)
        const denials = here.allow ? [] : [{ code: 'grant.revoked', msg: 'revoked' }]
        return {
          allow: here.allow,
          reasons: [],
          denials,
          obligations: { ...obligations, supervise: here.supervise },
          decision_id: `d_${here.asked.length}`,
          revision: here.policy,
        }
      },
      answersAnew() {
        const before = here.policy
        return () => here.policy !== before
      },
    },
  }
  const log = {
    async append(event: Event) {
      await here.logging()
      return await Promise.resolve(here.log.push(event))
    },
  }
  const permits = new Permits(room as never, log as never)
  /** As a request does. */
  const admit = async (question: WebQuestion): Promise<string> => {
    const answer = permits.find(session, question) ?? (await permits.ask(session, question))
    await answer.recorded
    if (answer.refusal !== undefined) throw answer.refusal
    if (session.state !== 'open') throw new Error('ended')
    answer.carried()
    return answer.id
  }
  /** The second is over, and what was planned for its end comes. */
  const lapse = (): void => {
    here.now += 1000
    vi.advanceTimersByTime(1000)
  }
  return { here, session, permits, admit, found, lapse }
}

describe('a request like one before it, in the same second', () => {
  test('has its answer: nobody is asked, nothing is looked up, and it is counted', async () => {
    const { here, admit, permits } = gateway()
    const ids = [await admit(page), await admit(page), await admit(page)]
    expect([new Set(ids).size, here.asked.length, here.looks]).toEqual([1, 1, 1])
    expect(here.log.map(({ message }) => message)).toEqual(['GET forwarded'])
    permits.end('s_1')
    await Promise.resolve()
    expect(here.log.slice(1)).toMatchObject([
      { message: 'GET forwarded, 2 times more', data: { path: '/page', count: 2 } },
    ])
  })

  test('that comes while the first is being recorded waits for that', async () => {
    const { here, admit } = gateway()
    const recorded = Promise.withResolvers<void>()
    here.logging = () => recorded.promise
    let through = 0
    const both = [admit(page), admit(page)].map(async (one) => {
      await one
      through++
    })
    await new Promise(setImmediate)
    expect([here.asked.length, through]).toEqual([1, 0])
    recorded.resolve()
    await Promise.all(both)
    expect([here.asked.length, through]).toEqual([1, 2])
  })

  test('that is not carried in the end is not counted', async () => {
    const { here, admit, session, lapse } = gateway()
    const recorded = Promise.withResolvers<void>()
    here.logging = () => recorded.promise
    const both = [admit(page), admit(page)]
    await new Promise(setImmediate)
    session.advance('cut')
    recorded.resolve()
    for (const one of both) await expect(one).rejects.toThrow('ended')
    lapse()
    expect(here.log.map(({ message }) => message)).toEqual(['GET forwarded'])
  })

  test('that waited for the record of the first over the end of the second is told of at once', async () => {
    const { here, admit, lapse } = gateway()
    const recorded = Promise.withResolvers<void>()
    here.logging = () => recorded.promise
    const both = [admit(page), admit(page)]
    await new Promise(setImmediate)
    lapse()
    recorded.resolve()
    await Promise.all(both)
    await new Promise(setImmediate)
    expect(here.log.map(({ data }) => data.count)).toEqual([undefined, 1])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('is kept for a second and no longer, whether anybody comes again or not', async () => {
    const { here, admit, lapse } = gateway()
    await admit(page)
    lapse()
    expect(vi.getTimerCount()).toBe(0)
    // Set back to the very second: what was answered in it is not there any more.
    here.now -= 1000
    await admit(page)
    expect([here.looks, here.asked.length]).toEqual([2, 2])
  })

  test('is told of at the end of the second, and let go of in the next', async () => {
    const { here, admit, lapse } = gateway()
    await admit(page)
    await admit(page)
    lapse()
    await new Promise(setImmediate)
    expect(here.log.map(({ data }) => data.count)).toEqual([undefined, 1])
    expect(vi.getTimerCount()).toBe(1)
    lapse()
    await new Promise(setImmediate)
    expect([vi.getTimerCount(), here.log.length]).toEqual([0, 2])
  })

  test('whose record failed has no answer of it', async () => {
    const { here, admit } = gateway()
    here.logging = () => Promise.reject(new Error('no room'))
    await expect(admit(page)).rejects.toThrow('no room')
    await expect(admit(page)).rejects.toThrow('no room')
    here.logging = () => undefined
    await admit(page)
    expect(here.asked).toHaveLength(3)
  })

  test('is asked about where the first was refused, and each refusal is in the log', async () => {
    const { here, admit, session } = gateway()
    here.allow = false
    await expect(admit(page)).rejects.toMatchObject({ code: 'policy.denied' })
    await expect(admit(page)).rejects.toMatchObject({ code: 'policy.denied' })
    expect(here.log.map(({ status, reason }) => [status, reason])).toEqual([
      ['failure', 'grant.revoked'],
      ['failure', 'grant.revoked'],
    ])
    expect(session.denials).toBe(2)
  })

  test('what could not be told at the end of the second is reported', async () => {
    const { here, admit, permits } = gateway()
    await admit(page)
    await admit(page)
    here.logging = () => Promise.reject(new Error('no room'))
    permits.end('s_1')
    await new Promise(setImmediate)
    expect(here.reported).toBe(1)
  })

  test('what could not be told at the end of the second is told when the session ends', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const { here, admit, permits } = gateway()
      for (let at = 0; at < 3; at++) await admit(page)
      here.logging = () => Promise.reject(new Error('no room'))
      vi.advanceTimersByTime(1000)
      await new Promise(setImmediate)
      expect([here.reported, here.log.length]).toEqual([1, 1])
      here.logging = () => undefined
      permits.end('s_1')
      await new Promise(setImmediate)
      expect(here.log.slice(1)).toMatchObject([{ data: { count: 2 } }])
      expect(here.log).toHaveLength(2)
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('is asked about by itself', () => {
  test.for<[string, Partial<WebQuestion>]>([
    ['another path', { path: '/page2' }],
    ['another method', { method: 'HEAD' }],
    ['another spelling of the host', { host: 'HMI' }],
    ['from elsewhere', { source: { ...source, ip: '10.0.0.2' } }],
    [
      'over another cipher',
      { source: { ...source, tls: { ...source.tls, cipher: 'TLS_AES_128_GCM_SHA256' } } },
    ],
    ['over another version', { source: { ...source, tls: { ...source.tls, version: 'TLSv1.2' } } }],
    ['that may change something', { reads: false }],
  ])('%s', async ([, change]) => {
    const { here, admit } = gateway()
    await admit(page)
    await admit({ ...page, ...change })
    expect(here.asked).toHaveLength(2)
  })

  test('each of two that may change something', async () => {
    const { here, admit } = gateway()
    const post = { ...page, method: 'POST', reads: false }
    await admit(post)
    await admit(post)
    expect([here.asked.length, here.log.length]).toEqual([2, 2])
  })

  test('the 257th of a second, and one whose name is longer than is remembered', async () => {
    const { here, admit } = gateway()
    for (let at = 0; at < 256; at++) await admit({ ...page, path: `/${at}` })
    for (const path of ['/more', '/more', '/0']) await admit({ ...page, path })
    expect(here.asked).toHaveLength(258)
    here.now += 1000
    const long = { ...page, path: `/${'a'.repeat(2048)}` }
    await admit(long)
    await admit(long)
    expect(here.asked).toHaveLength(260)
  })

  test('an address that could be read in two ways, before anybody is', async () => {
    const { here, admit } = gateway()
    await expect(admit({ ...page, path: '/a%2fb' })).rejects.toMatchObject({ code: 'app.target' })
    expect([here.asked, here.looks]).toEqual([[], 0])
  })
})

type Row = ReturnType<typeof gateway>

describe('nothing is answered out of memory once', () => {
  test.for<[string, (row: Row) => void]>([
    ['the second is over', ({ here }) => void (here.now += 1000)],
    ['the clock was set back', ({ here }) => void (here.now -= 1000)],
    ['something touches the session', ({ session }) => void session.stirred++],
    [
      'it was decided again',
      ({ session }) =>
        session.rebind([{ sight: { source, observed: null }, obligations: session.obligations }]),
    ],
    [
      'one more connection binds it',
      ({ session }) => session.bindAlso({} as never, session.obligations),
    ],
    [
      'it stands on other facts',
      ({ session }) =>
        session.stands({ grants: [], changesAt: 9e12 }, { target: {} as never, grants: [] }),
    ],
    ['its person is another', ({ session }) => void (session.subject = { ...session.subject })],
    [
      'somebody at the device has consented',
      ({ session }) => void (session.consent = { by: 'o', at: 1 }),
    ],
    ['another program answers', ({ session }) => void (session.observed = null)],
    [
      'the device says who listens, or is on another tunnel',
      ({ here }) => void (here.presence = tunnel()),
    ],
    ['its owner has cut it off', ({ here }) => void (here.cutOff = true)],
    ['another policy is in force, or a lock', ({ here }) => void (here.policy = 'r2')],
  ])('%s', async ([, change]) => {
    const row = gateway()
    await row.admit(page)
    await row.admit(page)
    change(row)
    row.here.allow = false
    await expect(row.admit(page)).rejects.toMatchObject({ code: 'policy.denied' })
    expect([row.here.asked.length, row.here.looks]).toEqual([2, 2])
    // Who had the first answer is told of before what came of the second.
    expect(row.here.log.map(({ data }) => data.count)).toEqual([undefined, 1, undefined])
  })

  test('the device has no tunnel any more', async () => {
    const { here, admit } = gateway()
    await admit(page)
    here.presence = undefined
    await expect(admit(page)).rejects.toMatchObject({ code: 'device.offline' })
  })

  test('its supervisor has left', async () => {
    const { here, admit, session } = gateway()
    here.supervise = true
    session.supervised('p_oda', { email: null, since: START })
    await admit(page)
    await admit(page)
    session.unsupervised('p_oda')
    await expect(admit(page)).rejects.toMatchObject({ code: 'policy.denied' })
    expect(here.log.at(-1)).toMatchObject({ reason: 'obligation.supervise' })
  })
})

describe('while it is looked up', () => {
  test('something changes: it is looked up again, and answered on what stands then', async () => {
    const { here, admit, session, found } = gateway()
    here.looking = () => {
      if (here.looks > 1) return
      found.device = { ...found.device, id: 'newer' }
      session.stirred++
    }
    await admit(page)
    expect([here.looks, here.asked.length]).toEqual([2, 1])
  })

  test('something changes: who comes then does not have the look from before', async () => {
    const { here, admit, session } = gateway()
    const slow = Promise.withResolvers<void>()
    here.looking = () => (here.looks === 1 ? slow.promise : undefined)
    const first = admit(page)
    session.stirred++
    await admit(page)
    expect(here.looks).toBe(2)
    slow.resolve()
    await first
    expect(here.asked).toHaveLength(1)
  })

  test.for<[string, (row: Row) => void]>([
    ['the store is slow', ({ here }) => void (here.now += 1000)],
    [
      'connections come and go',
      ({ session }) => session.bindAlso({} as never, session.obligations),
    ],
  ])('%s: answered all the same, for nobody else', async ([, change]) => {
    const row = gateway()
    const { here, admit } = row
    here.looking = () => change(row)
    await admit(page)
    expect([here.looks, here.asked.length]).toEqual([4, 1])
    await admit(page)
    expect(here.asked).toHaveLength(2)
  })

  test('something is withdrawn each time: nothing is answered on what is known to be old', async () => {
    const { here, admit, session } = gateway()
    here.looking = () => void session.stirred++
    await expect(admit(page)).rejects.toMatchObject({ code: 'store.unavailable' })
    expect([here.looks, here.asked, here.log]).toEqual([4, [], []])
  })

  test('the session ends: nobody is asked, and nothing is said to go on', async () => {
    const { here, admit, session } = gateway()
    here.looking = () => void session.advance('cut')
    await expect(admit(page)).rejects.toMatchObject({ code: 'session.ended' })
    expect([here.asked, here.log]).toEqual([[], []])
  })

  test('the store fails: who comes next looks again', async () => {
    const { here, admit } = gateway()
    here.looking = () => Promise.reject(new Error('store'))
    await expect(admit(page)).rejects.toThrow('store')
    here.looking = () => undefined
    await admit(page)
    expect(here.asked).toHaveLength(1)
  })
})

test('a question may be answered otherwise under another bundle, a trial, or another lock', () => {
  let digest = 'a'
  const engine = { status: () => ({ bundle_digest: digest }) }
  const decisions = new Decisions(engine as never, {} as never, () => START)
  const locks = { on: () => [], round: 0 }
  decisions.locks = locks
  const seen: boolean[] = []
  for (const change of [
    () => undefined,
    () => void (digest = 'b'),
    () => void (decisions.trial = {} as never),
    () => void locks.round++,
  ]) {
    const anew = decisions.answersAnew()
    change()
    seen.push(anew())
  }
  expect(seen).toEqual([false, true, true, true])
})
