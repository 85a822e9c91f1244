/** One at a time per grant: what reads a grant, records what it makes of it, and then changes it. */
/** The last work on each grant under way: the next one waits, so that it sees what there is. */
const underway = new WeakMap<object, Map<string, Promise<unknown>>>()

/** Does `work` after all that was begun on this grant of this store; gives what it gives, throws what it throws. */
export async function inTurn<T>(store: object, id: string, work: () => Promise<T>): Promise<T> {
  const turns = underway.get(store) ?? new Map<string, Promise<unknown>>()
  underway.set(store, turns)
  const before = turns.get(id) ?? Promise.resolve()
  const turn = before.then(work)
  const settled = turn.catch(() => undefined)
  turns.set(id, settled)
  try {
    return await turn
  } finally {
    if (turns.get(id) === settled) turns.delete(id)
  }
}
