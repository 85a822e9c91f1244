/**
 * Every single thing wrong in a vector's input or data, then several at once in its input: nothing turns
 * to allow, nothing binds to less. On the raw module, without the host's validation in front.
 */
import fc from 'fast-check'
import {
  allowed,
  dataFindings,
  groups,
  inputFindings,
  instanceOf,
  loosened,
  MEANINGFUL_NULL,
  mutated,
  mutations,
  unelevated,
} from '../policy/mutate.ts'
import type { Mutation } from '../policy/mutate.ts'

const AT_ONCE = 4

/** Every vector with its own instance and the mutations of its input. */
function rows(): {
  name: string
  check: (picks: readonly number[]) => string[]
}[] {
  return [...groups()].flatMap(([data, group]) => {
    const instance = instanceOf(JSON.parse(data))
    return group.map(({ topic, name, point, input }) => {
      const each = mutations(input)
      const before = [input, unelevated(input)].map((one) => allowed(instance, point, one, input))
      const check = (picks: readonly number[]): string[] => {
        const chosen = picks.map((pick) => each[pick % each.length]).filter((m) => m !== undefined)
        const after = allowed(instance, point, chosen.reduce(applied, input), input)
        const meant = chosen.some(([, path]) => MEANINGFUL_NULL.test(path.join('.')))
        if (after === undefined || (meant && before[0] !== undefined)) return []
        const how = chosen.map(([what, path]) => `${path.join('.')} ${what}`).join(', ')
        if (before[0] === undefined) return [`${topic}: ${name}: ${how} allows`]
        return loosened(before, after).map((key) => `${topic}: ${name}: ${how} loosens ${key}`)
      }
      return { name, check }
    })
  })
}

/** One mutation more; where an earlier one has taken the place away, as it is. */
function applied<T>(input: T, [, path, value]: Mutation): T {
  try {
    return mutated(input, path, value)
  } catch {
    return input
  }
}

/** Runs `cases` of them. Throws with the mutations that opened something. */
export async function fuzz({ cases, seed }: { cases: number; seed: number }): Promise<{
  cases: number
}> {
  const single = [inputFindings(1), dataFindings(1)]
  const found = single.flatMap(({ bad }) => bad)
  if (found.length > 0) throw new Error(found.join('\n'))
  const all = rows()
  const pick = fc.array(fc.nat(), { minLength: 2, maxLength: AT_ONCE })
  fc.assert(
    fc.property(fc.nat(), pick, (at, picks) => {
      const bad = all[at % all.length]?.check(picks) ?? []
      if (bad.length > 0) throw new Error(bad.join('\n'))
    }),
    { numRuns: cases, seed },
  )
  return Promise.resolve({ cases: single.reduce((sum, { tried }) => sum + tried, cases) })
}
