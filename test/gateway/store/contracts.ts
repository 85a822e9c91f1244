/** What every implementation of the gateway's stores must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { Device, DeviceStore, Process } from '../../../gateway/devices/device.ts'
import { inventoryOf } from '../../../gateway/devices/inventory.ts'
import type { InventoryStore, KeptInventory } from '../../../gateway/devices/inventory.ts'
import { hashOf, type Statement } from '#approval'
import { termsOf, type Grant, type GrantEvent } from '../../../gateway/grants/grant.ts'
import type { GrantStore } from '../../../gateway/grants/store.ts'
import { newId } from '../../../gateway/ids.ts'
import type { SessionRecord, SessionStore } from '../../../gateway/sessions/session.ts'

/** Gives an empty store; what it holds goes with the test. */
export type Make<S> = () => Promise<S>

const NOW = 1_780_000_000

function device(id: string, more: Partial<Device> = {}): Device {
  return { id, zone: 'default', state: 'pending', labels: {}, created_at: NOW, ...more }
}
function process(device: string, id: string, more: Partial<Process> = {}): Process {
  return { device, id, kind: 'tcp', locality: 'device', port: 502, expect: {}, ...more }
}
function grant(more: Partial<Statement> = {}, rest: Partial<Grant> = {}): Grant {
  const statement: Statement = {
    v: 1,
    id: newId('g'),
    tenant: 'main.sallyport.internal',
    requester: 'iss|vera',
    vendor: 'acme',
    devices: ['press-07'],
    processes: ['plc'],
    ot_level: 1,
    not_before: NOW,
    not_after: NOW + 3600,
    max_duration_s: 600,
    reason: 'service',
    ticket: null,
    created_at: NOW,
    ...more,
  }
  return {
    statement,
    hash: hashOf(statement),
    state: 'requested',
    requester_email: 'vera@acme.example',
    approvals: [],
    approvals_asked: rest.approvals_needed ?? 1,
    approvals_needed: 1,
    first_used_at: null,
    uses: 0,
    bytes: 0,
    extension: null,
    ended: null,
    ...rest,
  }
}
function session(more: Partial<SessionRecord> = {}): SessionRecord {
  return {
    id: newId('s'),
    grant: newId('g'),
    device: 'press-07',
    process: 'plc',
    kind: 'tcp',
    identity: 'iss|vera',
    email: 'vera@acme.example',
    party: 'vendor',
    opened_at: NOW,
    expires_at: NOW + 600,
    ended_at: null,
    reason: null,
    bytes_in: 0,
    bytes_out: 0,
    connections: 0,
    time_to_cut_ms: null,
    ...more,
  }
}

export function deviceStoreContract(name: string, make: Make<DeviceStore>): void {
  describe(`${name} as a store of devices`, () => {
    test('gives back what was put in, whatever its text', async () => {
      const store = await make()
      const odd = device('press-07', {
        zone: 'hall-a',
        labels: { 'ключ"\\': '☃\n\0’; DROP TABLE device' },
      })
      expect(await store.add(odd)).toBe(true)
      expect(await store.find('press-07')).toEqual(odd)
      expect(await store.find('press-08')).toBeUndefined()
    })
    test('adds an id once, also when many do', async () => {
      const store = await make()
      const all = await Promise.all(
        Array.from({ length: 20 }, (_, at) =>
          store.add(device('press-07', { created_at: NOW + at })),
        ),
      )
      expect(all.filter(Boolean)).toHaveLength(1)
      expect(await store.list()).toHaveLength(1)
    })
    test('lists by id', async () => {
      const store = await make()
      for (const id of ['b', 'a', 'c']) await store.add(device(id))
      expect((await store.list()).map(({ id }) => id)).toEqual(['a', 'b', 'c'])
    })
    test('moves only from where it may, and once where many do', async () => {
      const store = await make()
      await store.add(device('press-07'))
      expect(await store.move('press-07', ['active'], 'retired')).toBeUndefined()
      expect(await store.move('nowhere', ['pending'], 'active')).toBeUndefined()
      expect(await store.move('press-07', [], 'active')).toBeUndefined()
      expect((await store.find('press-07'))?.state).toBe('pending')
      const all = await Promise.all(
        Array.from({ length: 10 }, () => store.move('press-07', ['pending'], 'active')),
      )
      expect(all.filter((moved) => moved !== undefined)).toEqual([
        device('press-07', { state: 'active' }),
      ])
    })
    test('keeps one process of a name, the newest', async () => {
      const store = await make()
      for (const id of ['press-07', 'press-08']) await store.add(device(id))
      await store.putProcess(process('press-07', 'plc'))
      await store.putProcess(process('press-08', 'plc', { port: 7 }))
      const newer = process('press-07', 'plc', {
        kind: 'modbus',
        locality: 'lan',
        port: null,
        expect: { exe: ['/a'], sha256: ['0'.repeat(64)], uid: [0], unit: ['x'] },
      })
      await store.putProcess(newer)
      expect(await store.findProcess('press-07', 'plc')).toEqual(newer)
      expect(await store.processes('press-07')).toEqual([newer])
      expect((await store.findProcess('press-08', 'plc'))?.port).toBe(7)
      expect(await store.findProcess('press-07', 'hmi')).toBeUndefined()
      expect(await store.processes('nowhere')).toEqual([])
    })
    test('no process on a device that is not there', async () => {
      const store = await make()
      await expect(store.putProcess(process('nowhere', 'plc'))).rejects.toThrow()
      expect(await store.processes('nowhere')).toEqual([])
    })
  })
}

const approval = (by: string, hash: string) => ({
  by,
  email: `${by}@plant.example`,
  at: NOW + 1,
  hash,
  decision_id: newId('d'),
  signature: null,
})

export function grantStoreContract(name: string, make: Make<GrantStore>): void {
  describe(`${name} as a store of grants`, () => {
    test('gives back what was put in', async () => {
      const store = await make()
      const kept = grant({ processes: ['a', 'b'], ticket: 'T-1', reason: 'ü\0☃' })
      await store.add(kept)
      expect(await store.find(kept.statement.id)).toEqual(kept)
      expect(await store.find(newId('g'))).toBeUndefined()
    })
    test('adds an id once', async () => {
      const store = await make()
      const first = grant()
      await store.add(first)
      await expect(store.add(grant({ id: first.statement.id, reason: 'other' }))).rejects.toThrow()
      expect(await store.find(first.statement.id)).toEqual(first)
    })
    test('lists newest first, of one person or of all, and no more than asked', async () => {
      const store = await make()
      const all = [0, 1, 2, 3].map((at) =>
        grant({ created_at: NOW + at, requester: at % 2 === 0 ? 'iss|vera' : 'iss|otto' }),
      )
      for (const one of all) await store.add(one)
      const ids = (some: readonly Grant[]) => some.map(({ statement }) => statement.id)
      expect(ids(await store.list({ limit: 3 }))).toEqual(ids(all.toReversed().slice(0, 3)))
      const own = await store.list({ requester: 'iss|vera', limit: 9 })
      expect(own.map(({ statement }) => statement.created_at)).toEqual([NOW + 2, NOW])
    })
    test('gives the grants that apply: of this person, for this device, ended ones last', async () => {
      const store = await make()
      const old = grant({ created_at: NOW - 10 })
      const newer = grant({ created_at: NOW + 10 })
      for (const one of [
        old,
        newer,
        grant({ requester: 'iss|otto' }),
        grant({ devices: ['press-08'] }),
      ])
        await store.add(one)
      await store.apply(newer.statement.id, 'revoke', NOW, 'iss|oda', 'x')
      const found = await store.applicable('iss|vera', 'press-07', NOW)
      expect(found.map(({ statement }) => statement.id)).toEqual([
        old.statement.id,
        newer.statement.id,
      ])
    })
    test('lets in as many sessions as it may, also when more come at once', async () => {
      const store = await make()
      const kept = grant({ max_uses: 3 }, { state: 'approved' })
      await store.add(kept)
      const { id } = kept.statement
      const all = await Promise.all(
        Array.from({ length: 10 }, (_, at) => store.apply(id, 'use', NOW + at, 'iss|vera', '')),
      )
      expect(all.map((used) => used?.uses)).toEqual([1, 2, 3, ...Array(7).fill(undefined)])
      const after = await store.find(id)
      expect([after?.uses, after?.state, after?.first_used_at]).toEqual([3, 'active', NOW])
      expect((await store.apply(id, 'revoke', NOW + 9, 'iss|oda', 'x'))?.state).toBe('revoked')
    })
    test('sets aside what a grant may carry, also when many ask at once, and takes back the rest', async () => {
      const store = await make()
      const kept = grant({ max_bytes: 100 })
      await store.add(kept)
      const { id } = kept.statement
      const all = await Promise.all([30, 30, 30, 30, 30].map((some) => store.takeBytes(id, some)))
      expect(all).toEqual([30, 30, 30, 10, 0])
      await store.returnBytes(id, 25)
      expect((await store.find(id))?.bytes).toBe(75)
      expect(await store.takeBytes(id, 1000)).toBe(25)
      expect(await store.takeBytes(id, 1)).toBe(0)
    })
    test('sets nothing aside where there is no limit, or no grant', async () => {
      const store = await make()
      const kept = grant()
      await store.add(kept)
      expect(await store.takeBytes(kept.statement.id, 10)).toBe(0)
      expect(await store.takeBytes(newId('g'), 10)).toBe(0)
      await store.returnBytes(kept.statement.id, 10)
      expect((await store.find(kept.statement.id))?.bytes).toBe(0)
    })
    describe('an extension', () => {
      const longer = (of: Grant, more: Partial<Statement> = {}, rest: Partial<Grant> = {}) =>
        grant(
          {
            ...of.statement,
            id: newId('g'),
            not_after: NOW + 7200,
            max_duration_s: 1200,
            extends: { grant: of.statement.id, sha256: of.hash },
            ...more,
          },
          rest,
        )
      const lasts = async (store: GrantStore, of: Grant) => {
        const { extension, ...kept } = (await store.find(of.statement.id)) ?? of
        return [
          extension?.statement.id,
          termsOf({ ...kept, extension: extension ?? null }).not_after,
        ]
      }
      async function started(more: Partial<Statement> = {}) {
        const store = await make()
        const kept = grant(more, { state: 'approved' })
        await store.add(kept)
        await store.apply(kept.statement.id, 'use', NOW, 'iss|vera', '')
        return { store, kept }
      }
      const agree = async (store: GrantStore, { statement: { id }, hash }: Grant, at = NOW + 1) =>
        await store.approve(id, { ...approval('iss|oda', hash), at }, 1)

      test('holds once it is approved: the grant is the same, and lasts longer', async () => {
        const { store, kept } = await started()
        const more = longer(kept, {}, { ticket_valid: true })
        expect(await store.add(more)).toBe(true)
        expect(await lasts(store, kept)).toEqual([undefined, NOW + 3600])
        expect((await agree(store, more))?.state).toBe('approved')
        expect(await lasts(store, kept)).toEqual([more.statement.id, NOW + 7200])
        const found = await store.find(kept.statement.id)
        expect([found?.hash, found?.statement]).toEqual([kept.hash, kept.statement])
        expect(found?.extension?.approvals.map(({ hash }) => hash)).toEqual([more.hash])
        expect([found?.ticket_valid, found?.extension?.ticket_valid]).toEqual([undefined, true])
        // It is never used by itself, and stands in no list of what may be.
        expect(await store.apply(more.statement.id, 'use', NOW, 'iss|vera', '')).toBeUndefined()
        const applicable = await store.applicable('iss|vera', 'press-07', NOW)
        expect(applicable.map(({ statement }) => statement.id)).toEqual([kept.statement.id])
      })
      test('has the grant found when its own time would be over', async () => {
        const write = { ot_level: 2, ot_windows: [{ unit: 1, from: 0, to: 9 }] }
        const { store, kept } = await started(write)
        const more = longer(kept)
        await store.add(more)
        const writes = async (now: number) =>
          (
            await store.writes({ requester: 'iss|vera', device: 'press-07', process: 'plc', now })
          ).map(({ statement }) => statement.id)
        expect(await writes(NOW + 600)).toEqual([])
        await agree(store, more)
        expect(await writes(NOW + 1199)).toEqual([kept.statement.id])
        expect(await writes(NOW + 1200)).toEqual([])
      })
      test('takes no effect once the grant is over, by a second or by somebody', async () => {
        const { store, kept } = await started()
        const more = longer(kept)
        await store.add(more)
        expect(await agree(store, more, NOW + 600)).toBeUndefined()
        expect((await agree(store, more, NOW + 599))?.state).toBe('approved')
        const { store: other, kept: gone } = await started()
        const late = longer(gone)
        await other.add(late)
        await other.apply(gone.statement.id, 'burn', NOW + 1, 'iss|vera', 'done')
        expect(await agree(other, late)).toBeUndefined()
        expect((await other.find(late.statement.id))?.state).toBe('spent')
        expect(await other.add(longer(gone, {}, { state: 'approved' }))).toBe(false)
      })
      test('of another statement than the grant’s takes none', async () => {
        const { store, kept } = await started()
        const forged = longer(kept, {
          extends: { grant: kept.statement.id, sha256: '0'.repeat(64) },
        })
        await store.add(forged)
        expect(await agree(store, forged)).toBeUndefined()
        const nowhere = longer(kept, { extends: { grant: newId('g'), sha256: kept.hash } })
        await store.add(nowhere)
        expect(await agree(store, nowhere)).toBeUndefined()
      })
      test('of two the longer holds, and the shorter is none beside it; when it ends, what is left does', async () => {
        const { store, kept } = await started()
        const [short, long, less] = [
          longer(kept),
          longer(kept, { not_after: NOW + 9000, max_duration_s: 1800 }),
          longer(kept, { not_after: NOW + 9000, max_duration_s: 1799 }),
        ]
        for (const one of [short, long, less]) await store.add(one)
        await agree(store, short)
        await agree(store, long)
        expect(await agree(store, less)).toBeUndefined()
        expect(await lasts(store, kept)).toEqual([long.statement.id, NOW + 9000])
        await store.apply(long.statement.id, 'revoke', NOW + 2, 'iss|oda', 'x')
        expect(await lasts(store, kept)).toEqual([short.statement.id, NOW + 7200])
        await store.apply(short.statement.id, 'revoke', NOW + 2, 'iss|oda', 'x')
        expect(await lasts(store, kept)).toEqual([undefined, NOW + 3600])
      })
      test('that came in time keeps it from being over', async () => {
        const { store, kept } = await started()
        const more = longer(kept)
        await store.add(more)
        await agree(store, more)
        const over = async (at: number) =>
          (await store.apply(kept.statement.id, 'expire', at, 'time', 'over'))?.state
        expect([await over(NOW + 600), await over(NOW + 1199)]).toEqual([undefined, undefined])
        expect(await over(NOW + 1200)).toBe('expired')
      })
      test('has the grant run on, and is no end of its own', async () => {
        const { store, kept } = await started()
        const more = longer(kept)
        await store.add(more)
        await agree(store, more)
        const soon = grant({ not_after: NOW + 1000 })
        await store.add(soon)
        const running = await store.running(9)
        expect(running.map(({ statement }) => statement.id)).toEqual([
          soon.statement.id,
          kept.statement.id,
        ])
        await store.apply(kept.statement.id, 'expire', NOW + 1200, 'time', 'over')
        expect((await store.find(more.statement.id))?.state).toBe('expired')
      })
      test('ends with the grant', async () => {
        const { store, kept } = await started()
        const [more, waiting] = [longer(kept), longer(kept, { not_after: NOW + 9000 })]
        for (const one of [more, waiting]) await store.add(one)
        await agree(store, more)
        await store.apply(kept.statement.id, 'revoke', NOW + 2, 'iss|oda', 'enough')
        for (const { statement } of [more, waiting])
          expect(await store.find(statement.id)).toMatchObject({
            state: 'revoked',
            ended: { at: NOW + 2, by: 'iss|oda', reason: 'enough' },
          })
      })
    })
    test('what a grant supersedes ends when it is approved, with its extensions, and not before', async () => {
      const store = await make()
      const old = grant({}, { state: 'approved' })
      const next = grant({
        processes: ['plc', 'hmi'],
        supersedes: { grant: old.statement.id, sha256: old.hash },
      })
      await store.add(old)
      await store.add(next)
      const two = { ...approval('iss|oda', next.hash), at: NOW + 5 }
      await store.approve(next.statement.id, two, 2)
      expect((await store.find(old.statement.id))?.state).toBe('approved')
      await store.approve(next.statement.id, { ...two, by: 'iss|olaf' }, 2)
      expect(await store.find(old.statement.id)).toMatchObject({
        state: 'revoked',
        ended: { at: NOW + 5, by: 'iss|olaf', reason: `superseded by ${next.statement.id}` },
      })
      expect((await store.find(next.statement.id))?.state).toBe('approved')
      const again = grant(
        { supersedes: { grant: next.statement.id, sha256: next.hash } },
        { state: 'approved' },
      )
      expect(await store.add(again)).toBe(true)
      expect((await store.find(next.statement.id))?.state).toBe('revoked')
    })
    test('forty ended grants do not crowd out the live one', async () => {
      const store = await make()
      const live = grant({ created_at: NOW - 1000 })
      await store.add(live)
      for (let at = 0; at < 40; at++) {
        const ended = grant({ created_at: NOW + at })
        await store.add(ended)
        await store.apply(ended.statement.id, 'revoke', NOW, 'x', 'x')
      }
      const found = await store.applicable('iss|vera', 'press-07', NOW)
      expect(found).toHaveLength(32)
      expect(found[0]).toEqual(live)
    })
    test('forty grants that ran out do not crowd out the live one, nor do forty that begin later', async () => {
      const store = await make()
      const approved = { state: 'approved' as const }
      const live = grant({ created_at: NOW - 1000 }, approved)
      await store.add(live)
      for (let at = 0; at < 40; at++) {
        const made = { created_at: NOW - 500 + at }
        await store.add(grant({ ...made, not_after: NOW }, at % 2 === 0 ? approved : {}))
        await store.add(grant({ ...made, not_before: NOW + 1 }, approved))
        const used = grant({ ...made, max_duration_s: 60 }, approved)
        await store.add(used)
        await store.apply(used.statement.id, 'use', NOW - 60, 'x', 'x')
      }
      const found = await store.applicable('iss|vera', 'press-07', NOW)
      expect(found).toHaveLength(32)
      expect(found[0]).toEqual(live)
    })
    test('gives the grants to write that count: of this person, there, approved, and not over', async () => {
      const store = await make()
      const windows = [{ unit: 1, from: 0, to: 9 }]
      const writing = (change: Partial<Statement> = {}, more: Partial<Grant> = {}) =>
        grant({ ot_level: 2, ot_windows: windows, not_after: NOW + 500, ...change }, more)
      const put = async (one: Grant) => {
        await store.add(one)
        return one.statement.id
      }
      const of = { requester: 'iss|vera', device: 'press-07', process: 'plc', now: NOW }
      const approved = { state: 'approved' as const }
      const counted = writing({ processes: ['hmi', 'plc'] }, approved)
      const begins = writing({ not_before: NOW + 100, not_after: NOW + 400 }, approved)
      await put(counted)
      await put(begins)
      for (const [change, more] of [
        [{}, {}],
        [{ ot_level: 1 }, approved],
        [{ requester: 'iss|otto' }, approved],
        [{ devices: ['press-08'] }, approved],
        [{ processes: ['hmi'] }, approved],
        [{ not_after: NOW }, approved],
      ] as const)
        await put(writing(change, more))
      await store.apply(await put(writing({}, approved)), 'revoke', NOW, 'x', 'x')
      const used = await put(writing({ max_duration_s: 60 }, approved))
      await store.apply(used, 'use', NOW - 60, 'x', 'x')
      expect(await store.writes(of)).toEqual([counted, begins])
      expect(await store.writes({ ...of, now: NOW + 400 })).toEqual([counted])
      expect(await store.writes({ ...of, now: NOW - 1 })).toHaveLength(4)
      for (let at = 0; at < 9; at++) await put(writing({ not_after: NOW + 600 + at }, approved))
      const most = await store.writes(of)
      expect(most.map(({ statement }) => statement.not_after - NOW)).toEqual([608, 607, 606, 605])
    })
    test('an approval counts once per person, for this hash, while it waits', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 2 })
      const { id } = asked.statement
      await store.add(asked)
      expect(await store.approve(id, approval('oda', '0'.repeat(64)), 1)).toBeUndefined()
      expect(await store.approve(newId('g'), approval('oda', asked.hash), 1)).toBeUndefined()
      const first = await store.approve(id, approval('oda', asked.hash), 1)
      expect([first?.state, first?.approvals.length]).toEqual(['requested', 1])
      expect(await store.approve(id, approval('oda', asked.hash), 1)).toBeUndefined()
      const second = await store.approve(id, approval('olaf', asked.hash), 1)
      expect([second?.state, second?.approvals.map(({ by }) => by)]).toEqual([
        'approved',
        ['oda', 'olaf'],
      ])
      expect(await store.approve(id, approval('otto', asked.hash), 1)).toBeUndefined()
    })
    test('an approval that policy gives nothing for is made up for by another', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 1 })
      const { id } = asked.statement
      await store.add(asked)
      const first = await store.approve(id, approval('oda', asked.hash), 2)
      expect([first?.state, first?.approvals_needed]).toEqual(['requested', 2])
      const second = await store.approve(id, approval('olaf', asked.hash), 2)
      expect([second?.state, second?.approvals_needed]).toEqual(['approved', 2])
    })
    test('what a policy wanted meanwhile binds no longer than it; what was asked at the request does', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 2 })
      const { id } = asked.statement
      await store.add(asked)
      const first = await store.approve(id, approval('oda', asked.hash), 3)
      expect([first?.state, first?.approvals_needed]).toEqual(['requested', 3])
      expect((await store.find(id))?.approvals_asked).toBe(2)
      const second = await store.approve(id, approval('olaf', asked.hash), 1)
      expect([second?.state, second?.approvals_needed]).toEqual(['approved', 2])
    })
    test('twenty approve at once: exactly as many count as were needed', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 3 })
      await store.add(asked)
      const all = await Promise.all(
        Array.from({ length: 20 }, (_, at) =>
          store.approve(asked.statement.id, approval(`p${at}`, asked.hash), 1),
        ),
      )
      expect(all.filter((one) => one !== undefined)).toHaveLength(3)
      expect(all.filter((one) => one?.state === 'approved')).toHaveLength(1)
      expect((await store.find(asked.statement.id))?.approvals).toHaveLength(3)
    })

    const never: readonly (readonly [string, readonly Exclude<GrantEvent, 'approve'>[]])[] = [
      ['requested', ['use']],
      ['approved', ['reject']],
      ['active', ['reject']],
      ['spent', ['use', 'burn', 'revoke', 'reject', 'expire']],
      ['revoked', ['use', 'burn', 'revoke', 'reject', 'expire']],
      ['rejected', ['use', 'burn', 'revoke', 'reject', 'expire']],
      ['expired', ['use', 'burn', 'revoke', 'reject', 'expire']],
    ]
    test.for(never)('a grant that is %s', async ([state, events]) => {
      const store = await make()
      const one = grant()
      const { id } = one.statement
      await store.add(one)
      if (state === 'approved' || state === 'active')
        await store.approve(id, approval('oda', one.hash), 1)
      const way = {
        active: 'use',
        spent: 'burn',
        revoked: 'revoke',
        rejected: 'reject',
        expired: 'expire',
      } as const
      const at = state === 'expired' ? one.statement.not_after : NOW + 2
      if (state in way) await store.apply(id, way[state as keyof typeof way], at, 'oda', 'why')
      const before = await store.find(id)
      expect(before?.state).toBe(state)
      for (const event of events)
        expect([event, await store.apply(id, event, NOW + 9, 'x', 'x')]).toEqual([event, undefined])
      expect(await store.find(id)).toEqual(before)
    })
    test('knows what has not ended, first what ends first', async () => {
      const store = await make()
      const [late, used, soon, over] = [
        grant({ not_after: NOW + 900 }),
        grant({ not_after: NOW + 800, max_duration_s: 60 }),
        grant({ not_after: NOW + 100 }),
        grant({ not_after: NOW + 10 }),
      ] as [Grant, Grant, Grant, Grant]
      for (const one of [late, used, soon, over]) await store.add(one)
      await store.approve(used.statement.id, approval('oda', used.hash), 1)
      await store.apply(used.statement.id, 'use', NOW, 'vera', '')
      await store.apply(over.statement.id, 'expire', NOW + 10, 'time', 'over')
      const ids = async (limit: number) =>
        (await store.running(limit)).map(({ statement }) => statement.id)
      expect(await ids(9)).toEqual([used, soon, late].map(({ statement }) => statement.id))
      expect(await ids(1)).toEqual([used.statement.id])
      expect((await store.find(over.statement.id))?.ended).toEqual({
        at: NOW + 10,
        by: 'time',
        reason: 'over',
      })
    })
    test('the first use is the first, however often it is used', async () => {
      const store = await make()
      const one = grant()
      const { id } = one.statement
      await store.add(one)
      await store.approve(id, approval('oda', one.hash), 1)
      await store.apply(id, 'use', NOW + 5, 'vera', '')
      const again = await store.apply(id, 'use', NOW + 50, 'vera', '')
      expect([again?.state, again?.first_used_at, again?.ended]).toEqual(['active', NOW + 5, null])
      const ended = await store.apply(id, 'burn', NOW + 60, 'vera', 'done')
      expect(ended?.ended).toEqual({ at: NOW + 60, by: 'vera', reason: 'done' })
    })
    test('revoked and used at once: whichever is later, it ends revoked', async () => {
      const store = await make()
      for (let round = 0; round < 20; round++) {
        const one = grant()
        const { id } = one.statement
        await store.add(one)
        await store.approve(id, approval('oda', one.hash), 1)
        await Promise.all([
          store.apply(id, 'use', NOW, 'vera', ''),
          store.apply(id, 'revoke', NOW, 'oda', 'x'),
          store.apply(id, 'use', NOW, 'vera', ''),
        ])
        expect((await store.find(id))?.state).toBe('revoked')
      }
    })
  })
}

export function sessionStoreContract(name: string, make: Make<SessionStore>): void {
  describe(`${name} as a store of sessions`, () => {
    const end = (id: string, at = NOW + 60) => ({
      id,
      at,
      reason: 'killed' as const,
      bytes_in: 2 ** 40,
      bytes_out: 7,
      connections: 3,
      time_to_cut_ms: 1.234,
    })
    test('gives back what was put in', async () => {
      const store = await make()
      const one = session({ email: null })
      await store.add(one)
      expect(await store.find(one.id)).toEqual(one)
      expect(await store.find(newId('s'))).toBeUndefined()
    })
    test('ends once', async () => {
      const store = await make()
      const one = session()
      await store.add(one)
      await store.end(end(one.id))
      await store.end({
        ...end(one.id, NOW + 99),
        reason: 'idle',
        bytes_in: 0,
        time_to_cut_ms: null,
      })
      expect(await store.find(one.id)).toEqual({
        ...one,
        ended_at: NOW + 60,
        reason: 'killed',
        bytes_in: 2 ** 40,
        bytes_out: 7,
        connections: 3,
        time_to_cut_ms: 1.234,
      })
    })
    test('an end without a beginning makes nothing', async () => {
      const store = await make()
      await store.end(end(newId('s')))
      expect(await store.list({ limit: 9 })).toEqual([])
    })
    test('lists open ones first, then the newest, of one person or of all', async () => {
      const store = await make()
      const [a, b, c, d] = [3, 2, 1, 0].map((at) =>
        session({ opened_at: NOW + at, identity: at === 0 ? 'iss|otto' : 'iss|vera' }),
      )
      if (a === undefined || b === undefined || c === undefined || d === undefined) return
      for (const one of [d, c, b, a]) await store.add(one)
      await store.end(end(a.id))
      const ids = (some: readonly SessionRecord[]) => some.map(({ id }) => id)
      expect(ids(await store.list({ limit: 9 }))).toEqual(ids([b, c, d, a]))
      expect(ids(await store.list({ limit: 2 }))).toEqual(ids([b, c]))
      expect(ids(await store.list({ identity: 'iss|otto', limit: 9 }))).toEqual([d.id])
    })
    test('knows what was left open', async () => {
      const store = await make()
      const [one, two] = [session(), session()]
      await store.add(one)
      await store.add(two)
      await store.end(end(one.id))
      expect(await store.open()).toEqual([two])
    })
  })
}

export function inventoryStoreContract(name: string, make: Make<InventoryStore>): void {
  describe(`${name} as a store of inventories`, () => {
    const told = (exe: string): KeptInventory => {
      const listener = { ...UNSEEN, exe, others: [] }
      const target = { process: 'plc', kind: 'tcp', listener, listens: ['127.0.0.1:502'] }
      return { ...inventoryOf([target], 3), at: NOW }
    }
    test('keeps the newest inventory of each device', async () => {
      const store = await make()
      expect(await store.inventory('press-07')).toBeUndefined()
      await store.putInventory('press-08', told('/c'))
      for (const exe of ['/a', '/b']) await store.putInventory('press-07', told(exe))
      expect(await store.inventory('press-07')).toEqual(told('/b'))
      expect(await store.inventory('press-08')).toEqual(told('/c'))
    })
    test('keeps the newest baseline of each device, whatever is exposed since', async () => {
      const store = await make()
      const accepted = ({ hash, processes }: KeptInventory, by: string) => ({
        hash,
        processes,
        at: NOW,
        by,
      })
      const [first, second] = [told('/a'), told('/b')]
      await store.accept('press-07', accepted(first, 'iss|oda'))
      await store.putInventory('press-07', second)
      expect(await store.baseline('press-07')).toEqual(accepted(first, 'iss|oda'))
      expect(await store.baseline('press-08')).toBeUndefined()
      await store.accept('press-07', accepted(second, 'iss|ole'))
      expect(await store.baseline('press-07')).toEqual(accepted(second, 'iss|ole'))
    })
  })
}

const UNSEEN = {
  phase: 'listener',
  exe: null,
  sha256: null,
  script_sha256: null,
  uid: null,
  unit: null,
  image: null,
  started_at: null,
  pid: null,
} as const
