/** `npm run fuzz -- NAME [--cases N] [--seed S]`: runs one fuzzer and says what it did. */
import { parseArgs } from 'node:util'

type Fuzz = (options: { cases: number; seed: number }) => Promise<{ cases: number }>

interface Fuzzer {
  readonly load: () => Promise<{ readonly fuzz: Fuzz }>
  /** Without --cases. */
  readonly cases: number
}

/** Every fuzzer there is, each loaded only when it runs; a room adds its line here. */
const fuzzers: Readonly<Record<string, Fuzzer>> = {
  mux: { load: () => import('./mux.ts'), cases: 1_000_000 },
  policy: { load: () => import('./policy.ts'), cases: 200_000 },
  // A case is a frame, whole or not, in a chain of gateway and agent.
  modbus: { load: () => import('./modbus.ts'), cases: 70_000 },
  // Each case is signed by its key and, where it is accepted, read by two others.
  csr: { load: () => import('./csr.ts'), cases: 100_000 },
}

const USAGE = `usage: npm run fuzz -- NAME [--cases N] [--seed S]\nNAME is one of: ${Object.keys(fuzzers).join(', ')}`

/** Runs the command line; resolves with the exit code: 0 done, 1 found something, 2 makes no sense. */
async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { cases: { type: 'string' }, seed: { type: 'string' } },
  })
  const name = positionals[0] ?? ''
  const seed = Number(values.seed ?? Date.now() % 2 ** 31)
  const fuzzer = Object.hasOwn(fuzzers, name) ? fuzzers[name] : undefined
  const cases = Number(values.cases ?? fuzzer?.cases)
  const sensible = Number.isSafeInteger(cases) && cases > 0 && Number.isSafeInteger(seed)
  if (fuzzer === undefined || positionals.length !== 1 || !sensible) {
    console.error(USAGE)
    return 2
  }
  const began = performance.now()
  try {
    const { fuzz } = await fuzzer.load()
    const done = await fuzz({ cases, seed })
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    console.log(`${name}: ${done.cases} cases, seed ${seed}, ${seconds} s, nothing found`)
    return 0
  } catch (error) {
    console.error(
      `${name}: seed ${seed} found something; run it again with --seed ${seed} --cases ${cases}`,
    )
    console.error(error)
    return 1
  }
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  console.error(USAGE)
  process.exitCode = 2
}
