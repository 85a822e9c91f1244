/**
 * `npm run bench -- NAME [--quick] [--json FILE]`: runs one bench and prints its table. Progress goes
 * to stderr, the table to stdout. `--only A,B` and `--plot FILE` are for benches that have parts and
 * pictures. Exits 0; 1 if the bench failed or --quick ran out of its two
 * minutes; 2 for a command line that makes no sense.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { rowComplaints, table } from './print.ts'
import type { Bench, Row, RunOptions } from './row.ts'

/** Every bench there is; a file is loaded only when its bench is run or listed. */
export type Benches = Readonly<Record<string, () => Promise<{ readonly bench: Bench }>>>

const benches: Benches = {
  mux: () => import('./mux.ts'),
  policy: () => import('./policy.ts'),
  audit: () => import('./audit.ts'),
  ca: () => import('./ca.ts'),
  tunnel: () => import('./tunnel.ts'),
  abuse: () => import('./abuse.ts'),
  recording: () => import('./recording.ts'),
  agent: () => import('./agent.ts'),
  access: () => import('./access.ts'),
}

export const QUICK_SECONDS = 120

interface Output {
  out(text: string): void
  err(text: string): void
}

const USAGE = 'usage: npm run bench -- NAME [--quick] [--json FILE] [--only PART,…] [--plot FILE]'

/** Runs the command line; resolves with the exit code. `quickSeconds` is what --quick allows. */
export async function main(
  args: readonly string[],
  all: Benches = benches,
  output: Output = {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  },
  quickSeconds = QUICK_SECONDS,
): Promise<number> {
  const asked = parse(args)
  if (typeof asked === 'string') {
    output.err(`${asked}\n${USAGE}\n`)
    return 2
  }
  if (asked.name === undefined) {
    output.out(`${USAGE}\n\n${await list(all)}`)
    return 0
  }
  const load = Object.hasOwn(all, asked.name) ? all[asked.name] : undefined
  if (load === undefined) {
    output.err(`no bench is called ${asked.name}; there are:\n${await list(all)}`)
    return 2
  }
  const { bench } = await load()
  output.err(
    `${bench.name}: ${bench.title}${asked.quick ? ` (quick: at most ${quickSeconds} s)` : ''}\n`,
  )
  const began = performance.now()
  const rows = await measure(bench, asked, asked.quick ? quickSeconds : undefined, output)
  output.err(`${bench.name}: ${((performance.now() - began) / 1000).toFixed(1)} s\n`)
  if (asked.json !== undefined)
    await writeFile(asked.json, `${JSON.stringify(rows.list, null, 2)}\n`)
  if (rows.failed) return 1
  output.out(table(`${bench.name}: ${bench.title}`, rows.list))
  return 0
}

interface Asked extends RunOptions {
  readonly name: string | undefined
  readonly json: string | undefined
}

function parse(args: readonly string[]): Asked | string {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        quick: { type: 'boolean', default: false },
        json: { type: 'string' },
        only: { type: 'string', default: '' },
        plot: { type: 'string' },
      },
    })
    if (positionals.length > 1) return `one bench at a time: ${positionals.join(', ')}`
    const { quick, json, plot } = values
    const only = values.only.split(',').filter((word) => word !== '')
    return { name: positionals[0], quick, json, only, ...(plot === undefined ? {} : { plot }) }
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** A line per bench. One that does not load says so and hides no other. */
async function list(all: Benches): Promise<string> {
  const lines = Object.entries(all).map(async ([name, load]) => {
    const title = await load().then(
      ({ bench }) => bench.title,
      (error: unknown) =>
        `does not load: ${error instanceof Error ? error.message : String(error)}`,
    )
    return `  ${name.padEnd(10)} ${title}\n`
  })
  return (await Promise.all(lines)).join('')
}

interface Measured {
  readonly list: readonly Row[]
  readonly failed: boolean
}

async function measure(
  bench: Bench,
  options: RunOptions,
  seconds: number | undefined,
  output: Output,
): Promise<Measured> {
  try {
    await using budget = seconds === undefined ? undefined : new Budget(bench.name, seconds)
    const running = bench.run(options)
    const list = await (budget === undefined ? running : Promise.race([running, budget.spent]))
    const wrong = rowComplaints(list)
    if (wrong.length > 0) throw new Error(`rows that say too little: ${wrong.join('; ')}`)
    return { list, failed: false }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    output.err(
      `${bench.name} failed: ${error instanceof BudgetError ? why : ((error as Error).stack ?? why)}\n`,
    )
    return {
      list: [{ metric: bench.name, value: null, unit: '', reference: '', why }],
      failed: true,
    }
  }
}

class BudgetError extends Error {
  override readonly name = 'BudgetError'
}

// Runs beside a bench that may block its thread: tells it, waits, and in the end stops the process.
const WATCHDOG = `
const { parentPort, workerData } = require('node:worker_threads')
const { writeSync } = require('node:fs')
setTimeout(() => parentPort.postMessage('spent'), workerData.ms)
setTimeout(() => {
  writeSync(2, workerData.message + '; it did not stop, so the process ends here\\n')
  process.kill(process.pid, 'SIGKILL')
}, workerData.ms + 5000)
`

/** Two minutes that hold even for a bench that never yields. */
class Budget implements AsyncDisposable {
  readonly spent: Promise<never>
  readonly #worker: Worker

  constructor(name: string, seconds: number) {
    const message = `${name} took longer than the ${seconds} s that --quick allows`
    this.#worker = new Worker(WATCHDOG, { eval: true, workerData: { ms: seconds * 1000, message } })
    this.#worker.unref()
    const { promise, reject } = Promise.withResolvers<never>()
    this.#worker.on('message', () => reject(new BudgetError(message)))
    this.spent = promise
    // Nobody waits for it once the bench is done.
    promise.catch(() => undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate()
  }
}

// A bench that ran out of time may still hold sockets and children: leave, do not wait for it.
if (import.meta.main) process.exit(await main(process.argv.slice(2)))
