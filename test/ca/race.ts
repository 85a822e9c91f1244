/** Two processes that reach for one store at the same moment. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export interface Work {
  readonly token: string
  readonly revocation: number
  /** How many keys each process tries the token with, and how many numbers it takes. */
  readonly count: number
}
export interface Raced {
  readonly outcomes: readonly string[]
  readonly numbers: readonly number[]
  readonly redeemed: boolean
}

/** What either process got; both had the store open before either began. */
export async function race(place: readonly string[], work: Work): Promise<readonly Raced[]> {
  const program = new URL('./racer.ts', import.meta.url).pathname
  const racers = ['a', 'b'].map((side) => {
    const args = [program, side, JSON.stringify(work), ...place]
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() }
  })
  const next = async (lines: AsyncIterator<string>) => String((await lines.next()).value)
  for (const { lines } of racers)
    if ((await next(lines)) !== 'ready') throw new Error('a racer did not start')
  for (const { child } of racers) child.stdin.write('go\n')
  const told: Raced[] = []
  for (const { child, lines } of racers) {
    told.push(JSON.parse(await next(lines)) as Raced)
    if (child.exitCode === null) await once(child, 'exit')
  }
  return told
}
