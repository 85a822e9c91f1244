/** How a browser becomes a session: once, within a minute, for one app. */
import { describe, expect, test } from 'vitest'
import { AppSignIns, parseAppLabel, takeCookie } from '../../../gateway/access/apps.ts'

describe('the link', () => {
  test('works once', () => {
    const signIns = new AppSignIns()
    const ticket = signIns.ticket('s_1', 0)
    const entered = signIns.enter(ticket, 1)
    expect(entered?.session).toBe('s_1')
    expect(signIns.find(entered?.cookie ?? '')).toBe('s_1')
    expect(signIns.enter(ticket, 2)).toBeUndefined()
  })
  test.for([
    { name: 'just in time', at: 59_999, works: true },
    { name: 'a minute late', at: 60_000, works: false },
  ])('$name', ({ at, works }) => {
    const signIns = new AppSignIns()
    expect(signIns.enter(signIns.ticket('s_1', 0), at) !== undefined).toBe(works)
  })
  test('a guess is nothing', () => {
    expect(new AppSignIns().enter('', 0)).toBeUndefined()
    expect(new AppSignIns().find('x')).toBeUndefined()
  })
  test('nothing of an ended session stays', () => {
    const signIns = new AppSignIns()
    const entered = signIns.enter(signIns.ticket('s_1', 0), 0)
    const waiting = signIns.ticket('s_1', 0)
    signIns.forget('s_1')
    expect(signIns.find(entered?.cookie ?? '')).toBeUndefined()
    expect(signIns.enter(waiting, 0)).toBeUndefined()
  })
  test('links that nobody follows are bounded', () => {
    const signIns = new AppSignIns()
    const first = signIns.ticket('s_1', 0)
    for (let at = 0; at < 10_001; at++) signIns.ticket('s_2', 0)
    expect(signIns.enter(first, 0)).toBeUndefined()
  })
})

test.for([
  { label: 'hmi--press-07', is: { process: 'hmi', device: 'press-07' } },
  { label: 'hmi', is: undefined },
  { label: 'a--b--c', is: undefined },
  { label: '--press-07', is: undefined },
  { label: 'hmi--', is: undefined },
  { label: 'hmi--press_07', is: undefined },
  { label: 'x.hmi--press-07', is: undefined },
])('the label $label', ({ label, is }) => {
  expect(parseAppLabel(label)).toEqual(is)
})

test('a cookie whose name only begins alike is not ours', () => {
  expect(takeCookie('__Host-sallyport-app2=x', '__Host-sallyport-app')).toEqual({
    value: undefined,
    rest: '__Host-sallyport-app2=x',
  })
})
