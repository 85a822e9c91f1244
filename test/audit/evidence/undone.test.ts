/** What was recorded before the store was told, and then not done, or not surely: neither program calls it done. */
import { describe, expect, test } from 'vitest'
import type { EventInput } from '#audit'
import { readZip, verifyPackage } from '../../../audit/evidence/verify.mjs'
import { temporary, vkeys } from '../fixture.ts'
import { begin, Month, olga } from '../month.ts'
import { foreign, hasForeign, packageOf } from './fixture.ts'

const grant = { device: 'press-07', grant: 'g_1', actor: olga } as const
type Ending = 'grant.revoke' | 'grant.reject' | 'grant.burn'

/** An end as the gateway records it before it tells the store. */
const ending = (code: Ending): EventInput => ({
  ...grant,
  code,
  message: 'grant ended: the work is done',
  status: 'success',
  disposition: 'revoked',
  data: {},
})
/** And as it tells that the store did not confirm it. A log of before there was an `effect` has none. */
const refused = (code: Ending, effect: string | undefined = 'unknown'): EventInput => ({
  ...grant,
  code,
  message: 'without effect, as far as is known: the store did not confirm it',
  status: 'failure',
  reason: 'store.unavailable',
  data: { effect },
})
const lock = (
  code: 'session.lock' | 'session.unlock',
  failure?: { readonly reason: string; readonly effect: string },
  of: { readonly scope: string; readonly target: string } = { scope: 'device', target: 'press-07' },
  id = 'l_1',
): EventInput => ({
  code,
  message:
    failure === undefined ? `locked: device press-07 (${id}): why` : `it failed (${id}): why`,
  status: failure === undefined ? 'success' : 'failure',
  actor: olga,
  reason: failure?.reason ?? id,
  data: { ...of, effect: failure?.effect },
})
const approval = (
  approvals: number,
  failure?: { readonly reason: string; readonly effect?: string },
): EventInput => ({
  ...grant,
  code: 'grant.approve',
  message: failure === undefined ? 'approval given' : 'approval without effect',
  status: failure === undefined ? 'success' : 'failure',
  reason: failure?.reason,
  data: { approvals, approvals_needed: 1, effect: failure?.effect },
})

interface Said {
  readonly exit: number
  readonly text: string
  readonly html: string
  readonly grants: string
  /** What the other program says; null: it cannot run here. */
  readonly other: () => { readonly exit: number; readonly out: string } | null
}
/** A log in which this happened to a grant that had been approved, and what is made of it. */
function told(act: (month: Month) => void, approved = true): Said {
  const at = temporary()
  const one = new Month(at)
  one.every = 4
  one.open()
  one.pass(2)
  if (approved) one.grant('g_1')
  one.pass(1)
  act(one)
  one.pass(2)
  one.one.sign(one.time)
  one.one.close()
  const bytes = packageOf(at, begin, one.time)
  const { exit, lines } = verifyPackage(bytes, vkeys, 'press-07')
  const entry = (name: string): string => readZip(bytes).get(name)?.bytes.toString() ?? ''
  return {
    exit,
    text: lines.join('\n'),
    html: entry('report.html'),
    grants: entry('grants.csv'),
    other: () => (hasForeign ? foreign(bytes) : null),
  }
}
/** A session under the grant, which the gateway let in. */
function used(month: Month): void {
  month.pass(1)
  month.start('s_1', 'g_1')
  month.pass(1)
  month.end('s_1')
}

describe('an end of a grant that the store did not confirm', () => {
  const rows = (['grant.revoke', 'grant.reject', 'grant.burn'] as const).flatMap((code) => [
    { code, effect: 'unknown' },
    { code, effect: undefined },
  ])
  test.for(rows)('by $code (effect $effect) is not said to be one', ({ code, effect }) => {
    const { exit, text, html, grants, other } = told((month) => {
      month.write(ending(code))
      month.write(refused(code, effect))
      used(month)
    })
    expect(text).toContain(', and is not known to have ended when olga@plant.test had it ')
    expect(text).toMatch(
      /^recorded, but not done or not confirmed: event \d+, .*NOT CONFIRMED \(event \d+\): grant ended/m,
    )
    expect(text).toMatch(/cut, locked or revoked: 0(;|$)/m)
    expect(text).not.toMatch(/when it was (revoked|rejected|given back)/)
    expect(html).toContain('and is not known to have ended when olga@plant.test')
    expect(html).toMatch(/NOT CONFIRMED \(event \d+\): grant ended/)
    expect(html).not.toContain('<td>grant ended')
    expect(grants).toMatch(/not confirmed,NOT CONFIRMED \(event \d+\): grant ended/)
    // Whoever was let in afterwards came by a grant that nobody knows to have ended.
    expect(text).not.toContain('EXCEPTION')
    expect(exit).toBe(0)
    const foreigner = code === 'grant.revoke' ? other() : null
    if (foreigner === null) return
    expect(foreigner.out).toContain('NOT CONFIRMED: grant ended')
    expect(foreigner.exit).toBe(0)
  })
  test('and was done again is one from then on', () => {
    const { exit, text, other } = told((month) => {
      month.write(ending('grant.revoke'))
      month.write(refused('grant.revoke'))
      month.write(ending('grant.revoke'))
      used(month)
    })
    expect(text).toContain('when it was revoked by olga@plant.test')
    expect(text).toContain('its grant had ended (revoke)')
    expect(exit).toBe(1)
    if (hasForeign) expect(other()).toMatchObject({ exit: 1 })
  })
  test('does not undo the end that another recorded before', () => {
    const { text, other } = told((month) => {
      month.endGrant('g_1', 'expire')
      month.write(ending('grant.revoke'))
      month.write(refused('grant.revoke'))
      used(month)
    })
    expect(text).toContain('its grant had ended (expire)')
    if (hasForeign) expect(other()?.out).toContain('its grant had ended')
  })
})

describe('an approval', () => {
  test('that was not kept is none, and a session under it is an exception', () => {
    const { exit, text, other } = told((month) => {
      month.grant('g_1', 1, olga)
      month.write(approval(0, { reason: 'grant.state', effect: 'none' }))
      used(month)
    })
    expect(text).toContain('its grant had 0 of 1 approvals')
    expect(exit).toBe(1)
    const foreigner = other()
    if (foreigner === null) return
    expect(foreigner.out).toContain('too few approvals')
    expect(foreigner.exit).toBe(1)
  })
  test('that was not kept leaves a grant that nobody could use', () => {
    const { text } = told((month) => {
      month.write(approval(0, { reason: 'grant.state' }))
    })
    expect(text).toContain('who could reach press-07: 0 grants')
  })
  test('of which nobody knows is named so, and whoever the gateway let in by it is no exception', () => {
    const { exit, text, other } = told((month) => {
      month.write(approval(0, { reason: 'store.unavailable', effect: 'unknown' }))
      used(month)
    })
    expect(text).toContain('approved by olga@plant.test (not confirmed)')
    expect(exit).toBe(0)
    if (hasForeign) expect(other()).toMatchObject({ exit: 0 })
  })
  test('stands when the same person is refused a second one', () => {
    const { exit, text, other } = told((month) => {
      month.write(approval(1, { reason: 'grant.person' }))
      used(month)
    })
    expect(text).not.toContain('not confirmed')
    expect(exit).toBe(0)
    if (hasForeign) expect(other()).toMatchObject({ exit: 0 })
  })
})

describe('what an administrator did', () => {
  const call = (
    message: string,
    status: 'success' | 'failure',
    reason?: string,
    effect?: string,
    entity = 'sv_1',
  ): EventInput => ({
    code: 'admin.call',
    message,
    status,
    reason,
    actor: olga,
    data: { operation: 'service:revoke', verb: 'delete', entity, effect },
  })
  test('to one of two that are called alike is not laid to the other', () => {
    const words = 'service revoked: historian'
    const { text, other } = told((month) => {
      for (const entity of ['sv_1', 'sv_2'])
        month.write(call(words, 'success', undefined, undefined, entity))
      month.write(
        call(`without effect: ${words}`, 'failure', 'store.unavailable', undefined, 'sv_1'),
      )
    })
    const [, first, by] =
      /not confirmed: event (\d+),.*NOT CONFIRMED \(event (\d+)\)/.exec(text) ?? []
    expect(Number(by) - Number(first)).toBe(2)
    if (hasForeign) expect(other()?.out).toContain(`confirmed: event ${first}: NOT CONFIRMED`)
  })
  test.for([
    ['without effect', 'store.unavailable', 'none', 'WITHOUT EFFECT'],
    ['not known whether this took effect', 'store.unavailable', 'unknown', 'NOT CONFIRMED'],
  ] as const)('"%s" (%s, %s) is told as %s', ([words, reason, effect, says]) => {
    const { text, html, other } = told((month) => {
      month.write(call('service revoked: historian', 'success'))
      month.write(call(`${words}: service revoked: historian`, 'failure', reason, effect))
    })
    expect(text).toMatch(new RegExp(`${says} \\(event \\d+\\): service revoked: historian`))
    expect(html).not.toContain('<td>service revoked: historian')
    if (hasForeign) expect(other()?.out).toContain(`${says}: service revoked: historian`)
  })

  test('is not confirmed where the store did not, and stands where a later call was refused', () => {
    const { text, html, other } = told((month) => {
      month.write(call('service revoked: historian', 'success'))
      month.write(
        call('without effect: service revoked: historian', 'failure', 'store.unavailable'),
      )
      month.write(call('service revoked: scada', 'success'))
      month.write(call('service:revoke refused', 'failure', 'policy.denied'))
    })
    expect(text).toMatch(/NOT CONFIRMED \(event \d+\): service revoked: historian/)
    expect(text).not.toMatch(/(NOT CONFIRMED|WITHOUT EFFECT).*scada/)
    expect(html).not.toContain('<td>service revoked: historian')
    expect(html).toContain('<td>service revoked: scada')
    if (hasForeign) expect(other()?.out).toContain('NOT CONFIRMED: service revoked: historian')
  })
})

describe('a device that comes into another state', () => {
  const move = (
    code: 'device.quarantine' | 'device.resume' | 'device.retire',
    device: string,
    failure?: { readonly reason: string; readonly effect: string },
  ): EventInput => ({
    code,
    message: `${device}: ${failure === undefined ? 'odd' : 'it failed'}`,
    status: failure === undefined ? 'success' : 'failure',
    actor: olga,
    reason: failure?.reason,
    device,
    data: { effect: failure?.effect },
  })
  const rows = [
    { reason: 'store.unavailable', effect: 'unknown', says: 'NOT CONFIRMED' },
    { reason: 'device.state', effect: 'none', says: 'WITHOUT EFFECT' },
  ]
  test.for(rows)('and did not ($effect) is told so, and no other is', ({ says, ...failure }) => {
    const codes = ['device.quarantine', 'device.resume', 'device.retire'] as const
    const { text, other } = told((month) => {
      for (const code of codes) {
        month.write(move(code, 'press-08'))
        month.write(move(code, `press-07 ${code}`))
        month.write(move(code, `press-07 ${code}`, failure))
      }
    })
    expect(text).not.toMatch(/(NOT CONFIRMED|WITHOUT EFFECT).*press-08/)
    for (const code of codes) {
      expect(text).toMatch(new RegExp(`${says} \\(event \\d+\\): press-07 ${code}: odd`))
      if (hasForeign) expect(other()?.out).toContain(`${says}: press-07 ${code}: odd`)
    }
  })
})

describe('a lock, or the end of one', () => {
  const rows = [
    { reason: 'store.unavailable', effect: 'unknown', says: 'NOT CONFIRMED', done: 0 },
    { reason: 'lock.full', effect: 'none', says: 'WITHOUT EFFECT', done: 0 },
    { reason: 'store.unavailable', effect: 'held', says: null, done: 1 },
  ]
  test.for(rows)(
    'that failed ($reason, $effect) is told as it is',
    ({ reason, effect, says, done }) => {
      for (const code of ['session.lock', 'session.unlock'] as const) {
        const { text, html } = told((month) => {
          month.write(lock(code))
          month.write(lock(code, { reason, effect }))
        })
        expect(text).toMatch(new RegExp(`cut, locked or revoked: ${done}(;|$)`, 'm'))
        if (says === null) expect(text).not.toMatch(/NOT CONFIRMED|WITHOUT EFFECT/)
        else expect(html).toContain(`${says} (event `)
      }
    },
  )
  test('of the same target by the same person is taken back by its own failure', () => {
    for (const code of ['session.lock', 'session.unlock'] as const) {
      const { text, other } = told((month) => {
        for (const id of ['l_1', 'l_2']) month.write(lock(code, undefined, undefined, id))
        month.write(lock(code, { reason: 'lock.full', effect: 'none' }, undefined, 'l_1'))
      })
      expect(text).toMatch(/WITHOUT EFFECT \(event \d+\): locked: device press-07 \(l_1\)/)
      expect(text).not.toMatch(/WITHOUT EFFECT.*l_2/)
      if (hasForeign) expect(other()?.out).toMatch(/WITHOUT EFFECT: locked: .* \(l_1\): why$/m)
    }
  })
  test('of another target is not taken back by it', () => {
    const { text } = told((month) => {
      month.write(lock('session.lock', undefined, { scope: 'everything', target: 'all' }))
      month.write(lock('session.lock'))
      month.write(lock('session.lock', { reason: 'store.unavailable', effect: 'unknown' }))
    })
    expect(text).toContain('cut, locked or revoked: 1; recorded, but not done or not confirmed: 1')
  })
})
