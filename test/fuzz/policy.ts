/**
 * Every single thing wrong in a vector's input or data, then several at once in its input: nothing turns
 * to allow, nothing binds to less. On the raw module, without the host's validation in front.
 */
import fc from 'fast-check'
import { dataFindings, inputFindings, subjects } from '../../policy/toolchain/fail-open.ts'
import { trial } from '../policy/trial.ts'

const AT_ONCE = 4

/** Runs `cases` of them. Throws with the mutations that opened something. */
export async function fuzz({ cases, seed }: { cases: number; seed: number }): Promise<{
  cases: number
}> {
  const single = [inputFindings(trial), dataFindings(trial)]
  const found = single.flatMap(({ bad }) => bad)
  if (found.length > 0) throw new Error(found.join('\n'))
  const all = subjects(trial)
  const pick = fc.array(fc.nat(), { minLength: 2, maxLength: AT_ONCE })
  fc.assert(
    fc.property(fc.nat(), pick, (at, picks) => {
      const one = all[at % all.length]
      const each = one?.faults ?? []
      const faults = picks
        .map((number) => each[number % each.length])
        .filter((fault) => fault !== undefined)
      const bad = one?.check(faults) ?? []
      if (bad.length > 0) throw new Error(bad.join('\n'))
    }),
    { numRuns: cases, seed },
  )
  return Promise.resolve({ cases: single.reduce((sum, { tried }) => sum + tried, cases) })
}
