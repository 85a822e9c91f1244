/** The session's table: what may follow what, and nothing else. */
import { expect, test } from 'vitest'
import {
  sessionStates,
  step,
  type SessionEvent,
  type SessionState,
} from '../../../gateway/sessions/state.ts'

const states = Object.keys(sessionStates) as SessionState[]
const events: SessionEvent[] = ['recorded', 'cut', 'silent']

test('every path leads to ended, and ended leads nowhere', () => {
  const reach = (from: SessionState, seen = new Set<SessionState>()): Set<SessionState> => {
    if (seen.has(from)) return seen
    seen.add(from)
    for (const event of events) {
      const next = step(from, event)
      if (next !== undefined) reach(next, seen)
    }
    return seen
  }
  for (const state of states) expect(reach(state).has('ended')).toBe(true)
  for (const event of events) expect(step('ended', event)).toBeUndefined()
})

test('a session that was cut while it opened never becomes open', () => {
  const cut = step('opening', 'cut')
  expect(cut).toBe('ending')
  expect(cut === undefined ? undefined : step(cut, 'recorded')).toBeUndefined()
})
