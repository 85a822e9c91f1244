/** What can be wrong with one field of an input or of site data: gone, null, of another type, from the future. */
type Path = readonly (string | number)[]
export type Mutation = readonly [how: string, path: Path, value: unknown]

const DELETE = Symbol('delete')
/** Epoch seconds that no vector reaches. */
const LATER = 4_000_000_000

/** Paths of every object field, and of every element of lists (elements are never removed: fewer locks is a fact). */
function paths(value: unknown, at: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, part]) => {
    const here = [...at, Array.isArray(value) ? Number(name) : name]
    return [here, ...paths(part, here)]
  })
}

function get(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((now, step) => (now as Record<string, unknown>)[step], value)
}

function retyped(value: unknown): unknown {
  if (typeof value === 'string') return 7
  if (typeof value === 'number') return String(value)
  if (typeof value === 'boolean') return String(value)
  if (Array.isArray(value)) return {}
  return []
}

/** Every single thing that can be wrong with a value, one row each. */
export function mutations(value: unknown): Mutation[] {
  return paths(value).flatMap((path): Mutation[] => {
    const now = get(value, path)
    const last = path.at(-1)
    const each: Mutation[] = [['retyped', path, retyped(now)]]
    if (now !== null) each.push(['nulled', path, null])
    if (typeof last !== 'number') each.push(['deleted', path, DELETE])
    if (typeof now === 'number' && isEvent(String(last))) each.push(['in the future', path, LATER])
    return each
  })
}

/** When something happened, as opposed to when it will end. */
function isEvent(name: string): boolean {
  return /(?:_at|^at)$/.test(name) && name !== 'expires_at'
}

/** Pairs of parts that a rule may compare with each other, both null: top-level parts' own fields. */
export function nulledPairs(value: unknown): [Mutation, Mutation][] {
  const shallow = paths(value)
    .filter((path) => path.length === 2 && get(value, path) !== null)
    .map((path): Mutation => ['nulled', path, null])
  return shallow.slice(1).flatMap((first, at): [Mutation, Mutation][] => {
    const second = shallow[(at * 7 + 3) % shallow.length]
    return second === undefined || second === first ? [] : [[first, second]]
  })
}

/**
 * Does `work` while the mutations are in the value, and takes them out again. One whose place an earlier
 * one has taken away changes nothing. Takes a value of the caller's own: it is written to.
 */
export function mutated<T>(value: unknown, changes: readonly Mutation[], work: () => T): T {
  const [first, ...rest] = changes
  if (first === undefined) return work()
  const [, path, to] = first
  const holder = place(value, path.slice(0, -1))
  const last = path.at(-1) ?? ''
  if (holder === undefined) return mutated(value, rest, work)
  const had = Object.hasOwn(holder, last)
  const before = holder[last]
  if (to === DELETE) delete holder[last]
  else holder[last] = to
  try {
    return mutated(value, rest, work)
  } finally {
    if (had) holder[last] = before
    else delete holder[last]
  }
}

function place(value: unknown, path: Path): Record<string | number, unknown> | undefined {
  let now: unknown = value
  for (const step of path) {
    if (typeof now !== 'object' || now === null) return undefined
    now = (now as Record<string | number, unknown>)[step]
  }
  return typeof now === 'object' && now !== null
    ? (now as Record<string | number, unknown>)
    : undefined
}

/** The words of a mutation, as a finding has them. */
export function told([how, path]: Mutation): string {
  return `${path.join('.')} ${how}`
}
