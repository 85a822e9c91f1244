/** What a grant does when it takes effect or ends: cut first of all, and recorded as it was. */
import { describe, expect, test } from 'vitest'
import type { Statement } from '#approval'
import type { EventInput } from '#audit'
import type { Grant } from '../../../gateway/grants/grant.ts'
import { propose, type GrantRoom } from '../../../gateway/grants/request.ts'
import type { Subject } from '../../../gateway/identity/index.ts'
import {
  takesEffect,
  withdraw,
  type GrantEffects,
} from '../../../gateway/listen/routes/grant-effect.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

const NOW = 10_000
const REF = { grant: 'g_1', sha256: '0'.repeat(64) }

function grantOf(id: string, change: Partial<Statement> = {}, more: Partial<Grant> = {}): Grant {
  const statement = statementOf(NOW, { id, ...change })
  return grantAround(statement, more)
}
const superseded = (by: string) => ({ at: NOW, by: 'iss|oda', reason: `superseded by ${by}` })

/** A store of these, a log that fails at `broken` or never has it, and whoever cuts; what they did is in `did`. */
function place(held: readonly Grant[], broken?: string, slow?: string) {
  const did: string[] = []
  const room = {
    grants: {
      now: () => NOW * 1000,
      spare: () => 0,
      store: {
        find: async (id: string) => held.find(({ statement }) => statement.id === id),
        apply: async (id: string) => held.find(({ statement }) => statement.id === id),
      },
      log: {
        append: async ({ code }: EventInput) => {
          if (code === broken) throw new Error('the disk is full')
          if (code === slow) await new Promise(() => undefined)
          did.push(code)
        },
      },
    },
    changed: () => undefined,
    glass: { refresh: () => Promise.resolve() },
    reauthorization: {
      withdraw: async () => {
        did.push('cut')
        return []
      },
    },
  } as unknown as GrantEffects
  return { room, did }
}

describe('one that supersedes another', () => {
  const next = grantOf('g_2', { supersedes: REF })
  test.for([
    { name: 'ended by it', ended: superseded('g_2'), did: ['cut', 'grant.revoke'] },
    { name: 'that another had ended before', ended: superseded('g_0'), did: ['cut'] },
    {
      name: 'that its holder had given back',
      ended: { ...superseded(''), reason: 'done' },
      did: ['cut'],
    },
  ])('$name: recorded as it was', async ({ ended, did: expected }) => {
    const { room, did } = place([grantOf('g_1', {}, { state: 'revoked', ended })])
    await takesEffect(room, next, 0)
    expect(did).toEqual(expected)
  })
  test('where the log is slow: its sessions are cut before', async () => {
    const old = grantOf('g_1', {}, { state: 'revoked', ended: superseded('g_2') })
    const { room, did } = place([old], undefined, 'grant.revoke')
    void takesEffect(room, next, 0)
    await new Promise(setImmediate)
    expect(did).toEqual(['cut'])
  })
  test('where the log fails: its sessions are cut all the same', async () => {
    const old = grantOf('g_1', {}, { state: 'revoked', ended: superseded('g_2') })
    const { room, did } = place([old], 'grant.revoke')
    await expect(takesEffect(room, next, 0)).rejects.toThrow('the disk is full')
    expect(did).toEqual(['cut'])
  })
})

describe('an extension that is taken back', () => {
  const more = grantOf('g_2', { extends: REF })
  const subject = { id: 'iss|oda', authn: { methods: [] } } as unknown as Subject
  const source = { ip: null, tls: null }
  const ask = { grant: more, ending: 'revoke', reason: 'enough', subject, source, at: 0 } as const
  test('is recorded with what is left, and its sessions are decided again', async () => {
    const { room, did } = place([grantOf('g_1'), more])
    await withdraw(room, ask)
    expect(did).toEqual(['grant.revoke', 'cut', 'grant.extend'])
  })
  test('where the log is slow after it: they are decided again before', async () => {
    const { room, did } = place([grantOf('g_1'), more], undefined, 'grant.extend')
    void withdraw(room, ask)
    await new Promise(setImmediate)
    expect(did).toEqual(['grant.revoke', 'cut'])
  })
  test('where the log fails after it: they are decided again all the same', async () => {
    const { room, did } = place([grantOf('g_1'), more], 'grant.extend')
    await expect(withdraw(room, ask)).rejects.toThrow('the disk is full')
    expect(did).toEqual(['grant.revoke', 'cut'])
  })
})

test('an extension that needs no approval, and comes too late: the log says how long the grant lasts', async () => {
  const longer = { not_after: NOW + 7200, max_duration_s: 1200 }
  const { statement, hash, approvals } = grantOf('g_3', { ...longer, extends: REF })
  const held = grantOf('g_1', {}, { extension: { statement, hash, approvals } })
  const events: EventInput[] = []
  const room = {
    now: () => NOW * 1000,
    log: { state: 'OPEN', append: async (event: EventInput) => void events.push(event) },
    store: { add: async () => false, find: async () => held },
    devices: {
      find: async () => ({ id: 'press-07', zone: 'default', state: 'active', labels: {} }),
      findProcess: async () => ({ id: 'plc', kind: 'tcp', locality: 'device', expect: {} }),
    },
    registry: { find: () => undefined, isCutOff: () => false },
    decisions: {
      ask: () => ({
        allow: true,
        layer: 'host',
        reasons: [],
        denials: [],
        obligations: { approvals: 0, max_duration_s: 86_400 },
      }),
    },
  } as unknown as GrantRoom
  const asking = {
    subject: { id: 'iss|vera', authn: { methods: [] } } as unknown as Subject,
    source: { ip: null, tls: null },
    device: 'press-07',
    processes: ['plc'],
  }
  const less = grantOf('g_2', { not_after: NOW + 4000, extends: REF })
  await expect(propose(room, asking, less.statement)).rejects.toMatchObject({ code: 'grant.state' })
  expect(events.map(({ code, disposition }) => [code, disposition])).toEqual([
    ['grant.request', 'allowed'],
    ['grant.activate', 'approved'],
    ['grant.extend', 'approved'],
    ['grant.extend', 'revoked'],
  ])
  expect(events.at(-1)?.data).toEqual({
    not_after: NOW + 7200,
    max_seconds: 1200,
    extension: 'g_2',
  })
})
