/** Programs of the bench: they end with the path that started them, and with the bench however it ends. */
import { Programs } from '../../test/demo/programs.ts'

const started = new Set<Programs>()
// A bench whose time is over leaves without its blocks: what it started must not stay behind.
process.on('exit', () => {
  for (const programs of started) programs.killAll()
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

/** Their stderr goes to `directory`. */
export function programsIn(directory: string): Programs {
  const programs = new Programs(directory)
  started.add(programs)
  return programs
}
