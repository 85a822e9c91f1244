/** `npm run soak -- NAME [--loops N] [--seed S]`: one room, broken on purpose for as long as it takes. */
import { parseArgs } from 'node:util'

/** Breaks a room `loops` times; gives lines that say what was done. Throws what was found. */
type Soak = (options: { readonly loops: number; readonly seed: number }) => Promise<string[]>

const soaks: Readonly<Record<string, { readonly loops: number; load(): Promise<{ soak: Soak }> }>> =
  {
    audit: { loops: 200, load: () => import('./audit.ts') },
  }

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { loops: { type: 'string' }, seed: { type: 'string' } },
})
const name = positionals[0] ?? ''
const known = Object.hasOwn(soaks, name) ? soaks[name] : undefined
const loops = Number(values.loops ?? known?.loops)
const seed = Number(values.seed ?? Date.now() % 2 ** 31)
if (
  known === undefined ||
  !Number.isSafeInteger(loops) ||
  loops < 1 ||
  !Number.isSafeInteger(seed)
) {
  console.error(
    `usage: npm run soak -- NAME [--loops N] [--seed S]\nNAME is one of: ${Object.keys(soaks).join(', ')}`,
  )
  process.exitCode = 2
} else {
  try {
    const { soak } = await known.load()
    for (const line of await soak({ loops, seed })) console.log(`${name}: ${line}`)
  } catch (error) {
    console.error(`${name}: seed ${seed} found something`)
    console.error(error)
    process.exitCode = 1
  }
}
