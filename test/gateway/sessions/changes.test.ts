/** What a gateway makes of what others did, by a clock of the test's: which sessions it decides again, and when all of them. */
import { expect, onTestFinished, test, vi } from 'vitest'
import { inTurn } from '../../../gateway/grants/turn.ts'
import { ChangeWatch, type News } from '../../../gateway/sessions/changes.ts'
import { LateEnds } from '../../../gateway/sessions/late-ends.ts'
import type { LiveSession } from '../../../gateway/sessions/live.ts'
import type { Reauthorization } from '../../../gateway/sessions/reevaluate.ts'
import type { SessionEnd, SessionStore } from '../../../gateway/sessions/session.ts'
import { grant } from '../store/contracts/granted.ts'

const NOTHING: News = {
  grants: [],
  locked: false,
  devices: [],
  people: [],
  place: '1-0',
  lost: false,
}

/** A watch over two sessions, each under its own grant; the test says what the next look finds. */
async function watching() {
  const [one, two] = [grant({}, { state: 'revoked' }), grant({}, { state: 'spent' })]
  const live = [one, two].map(({ statement }, at) => ({
    id: `of ${statement.id}`,
    grant: statement.id,
    device: `press-0${at}`,
  }))
  const did: string[] = []
  const asked: (string | undefined)[] = []
  const here = { now: 0, next: NOTHING as News | Error, takes: 0 }
  const refuses = { write: undefined, end: undefined } as Record<'write' | 'end', Error | undefined>
  const reauthorization: Pick<Reauthorization, 'withdraw'> = {
    withdraw: async (touches, { trigger, reason }) => {
      const some = live.filter((session) => touches(session as unknown as LiveSession))
      did.push([trigger, reason ?? '-', ...some.map(({ id }) => id)].join(' '))
      here.now += here.takes
      return await Promise.resolve([])
    },
  }
  // Its own timer would look too.
  vi.useFakeTimers()
  const watch = await ChangeWatch.open({
    changes: {
      after: async (place) => {
        asked.push(place)
        if (here.next instanceof Error) throw here.next
        return await Promise.resolve(here.next)
      },
    },
    room: {
      grants: {
        find: async (id: string) =>
          await Promise.resolve([one, two].find(({ statement }) => statement.id === id)),
      },
      report: (_: unknown, what: string) => did.push(what),
    } as never,
    reauthorization,
    people: async (subs) => void (await Promise.resolve(did.push(['people', ...subs].join(' ')))),
    endings: async (ids) =>
      void (await Promise.resolve(did.push(['endings', ...(ids ?? ['all'])].join(' ')))),
    relock: async () => void (await Promise.resolve(did.push('locks'))),
    writable: async () => {
      if (refuses.write !== undefined) throw refuses.write
      await Promise.resolve()
    },
    seeing: async () => {
      if (refuses.end !== undefined) throw refuses.end
      await Promise.resolve(did.push('seen'))
    },
    monotonic: () => here.now,
  })
  onTestFinished(async () => {
    await watch[Symbol.asyncDispose]()
    vi.useRealTimers()
  })
  // What it tells the store is not waited for by a look.
  const told = async () => await vi.advanceTimersByTimeAsync(0)
  const look = async (at: number, next: Partial<News> | Error = {}) => {
    here.now = at
    here.next = next instanceof Error ? next : { ...NOTHING, ...next }
    await watch.look()
    await told()
    return did.splice(0)
  }
  const ids = [one, two].map(({ statement }) => statement.id)
  return {
    look,
    watch,
    asked,
    here,
    refuses,
    reauthorization,
    first: ids[0] ?? '',
    second: ids[1] ?? '',
  }
}

test('a change decides the sessions under that grant again, each grant once, and the next look goes on behind it', async () => {
  const { look, asked, first, second } = await watching()
  expect(await look(250)).toEqual(['seen'])
  expect(await look(500, { grants: [first, first], place: '7-0' })).toEqual([
    `grant - of ${first}`,
    'seen',
  ])
  expect(await look(750, { grants: [second, 'g_nowhere'], place: '9-0' })).toEqual([
    `grant grant_burned of ${second}`,
    'seen',
  ])
  await look(1000)
  expect(asked).toEqual([undefined, '1-0', '1-0', '7-0', '9-0'])
})

test('a device that changed decides the sessions on it again, once however often it did', async () => {
  const { look, second } = await watching()
  expect(await look(250, { devices: ['press-01', 'nowhere', 'press-01'] })).toEqual([
    `device - of ${second}`,
    'endings press-01 nowhere',
    'seen',
  ])
  expect(await look(500, { devices: ['nowhere'] })).toEqual(['device -', 'endings nowhere', 'seen'])
  expect(await look(750, { devices: ['nowhere'], locked: true })).toEqual([
    'locks',
    expect.stringMatching(/^lock/),
    'endings nowhere',
    'seen',
  ])
})

test('a lock is read before every session is decided; so it is where changes were missed', async () => {
  const { look, first, second } = await watching()
  const all = `of ${first} of ${second}`
  expect(await look(250, { locked: true, grants: [first] })).toEqual([
    'locks',
    `lock - ${all}`,
    'seen',
  ])
  expect(await look(500, { lost: true })).toEqual([
    'locks',
    `grant - ${all}`,
    'endings all',
    'seen',
  ])
})

test('of people who changed what they have open is decided again, each once; not where all is anyway', async () => {
  const { look, first, second } = await watching()
  expect(await look(250, { people: ['a', 'b', 'a'], grants: [first] })).toEqual([
    'people a b',
    `grant - of ${first}`,
    'seen',
  ])
  const all = `of ${first} of ${second}`
  expect(await look(500, { people: ['a'], locked: true })).toEqual([
    'locks',
    `lock - ${all}`,
    'seen',
  ])
})

test('who has not seen for three seconds decides all at every look, says so once, and all again when it sees', async () => {
  const { look, watch, first, second } = await watching()
  const all = `grant - of ${first} of ${second}`
  const away = new Error('away')
  expect(await look(250, away)).toEqual(['what other gateways did is not known'])
  expect(watch.sighted).toBe(false)
  expect(await look(2999, away)).toEqual([])
  expect(await look(3000, away)).toEqual([all])
  expect(await look(3250, away)).toEqual([all])
  expect(await look(3500)).toEqual(['locks', all, 'endings all', 'seen'])
  expect(watch.sighted).toBe(true)
  expect(await look(3750)).toEqual(['seen'])
  // Asleep, and not failing: nobody knows what happened meanwhile either.
  expect(await look(6750)).toEqual(['locks', all, 'endings all', 'seen'])
})

test('a look that took longer than three seconds is no blindness: the next one decides what is new alone', async () => {
  const { look, here, first, second } = await watching()
  const all = `grant - of ${first} of ${second}`
  here.takes = 3100
  expect(await look(250, { lost: true })).toEqual(['locks', all, 'endings all', 'seen'])
  expect(await look(here.now + 250)).toEqual(['seen'])
  expect(await look(here.now + 250, { grants: [first] })).toEqual([`grant - of ${first}`, 'seen'])
  expect(await look(here.now + 250)).toEqual(['seen'])
})

test('what this node ends itself is heard of when whoever asked for it has cut: the answer says what', async () => {
  const { look, reauthorization, first } = await watching()
  const did: string[] = []
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const asked = inTurn(reauthorization, first, async () => {
    await promise
    did.push('cut')
  })
  const looked = look(250, { grants: [first] }).then((found) => did.push(...found))
  resolve(undefined)
  await Promise.all([asked, looked])
  expect(did).toEqual(['cut', `grant - of ${first}`, 'seen'])
})

test('a store that is read and takes no writes is said so once, and what others did is known', async () => {
  const { look, watch, refuses } = await watching()
  refuses.write = new Error('READONLY')
  expect(await look(250)).toEqual(['the store that gateways share takes no writes'])
  expect(await look(500)).toEqual([])
  expect([watch.sighted, watch.writes]).toEqual([true, false])
  refuses.write = undefined
  refuses.end = new Error('no')
  expect(await look(750)).toEqual([
    'ends of sessions could not be told to the store that gateways share',
  ])
  expect(await look(1000)).toEqual([])
  expect([watch.sighted, watch.writes]).toEqual([true, true])
  refuses.end = undefined
  expect(await look(1250)).toEqual(['seen'])
})

test('an end that the store did not take is handed over later, once', async () => {
  const taken: string[] = []
  let away = true
  const store = {
    end: async ({ id }: SessionEnd) => {
      if (away) throw new Error('away')
      taken.push(id)
      await Promise.resolve()
    },
  } as unknown as SessionStore
  const ends = new LateEnds(store)
  const zero = { bytes_in: 0, bytes_out: 0, connections: 0, time_to_cut_ms: null }
  const end = (id: string) => ({ id, at: 1, reason: 'idle' as const, ...zero })
  for (const id of ['a', 'b']) await ends.end(end(id))
  await expect(ends.handOver()).rejects.toThrow('away')
  away = false
  await ends.end(end('c'))
  await ends.handOver()
  await ends.handOver()
  expect(taken).toEqual(['c', 'a', 'b'])
})
