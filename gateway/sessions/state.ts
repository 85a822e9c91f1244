/** A session's life as a table; the picture in docs/architecture.md is the same. */

export type SessionState = 'opening' | 'open' | 'ending' | 'ended'
export type SessionEvent = 'recorded' | 'cut' | 'silent'

/** `recorded`: its start is durable. `cut`: it may not go on. `silent`: no connection of it is left. */
export const sessionStates: Readonly<
  Record<SessionState, Readonly<Partial<Record<SessionEvent, SessionState>>>>
> = {
  opening: { recorded: 'open', cut: 'ending' },
  open: { cut: 'ending' },
  ending: { silent: 'ended' },
  ended: {},
}

/** The next state, or undefined where the event cannot happen. */
export function step(state: SessionState, event: SessionEvent): SessionState | undefined {
  return sessionStates[state][event]
}
