/** The vendor's `sallyport connect`, and the vendor's own Modbus tool on its local port. */
import { join } from 'node:path'
import { expect } from './failure.ts'
import { readLine, type Program } from './programs.ts'
import { root } from './sallyport.ts'
import type { Stage } from './stage.ts'

export interface Connection {
  readonly program: Program
  readonly session: string
  readonly grant: string
}

const OPEN_MS = 20_000

/** Starts `sallyport connect PLACE` and resolves when its local port can be used. */
export async function openConnection(stage: Stage, place: string): Promise<Connection> {
  const listen = `127.0.0.1:${stage.ports.vendor}`
  const start = stage.sallyport.start('vendor', ['connect', place, '--listen', listen])
  const program = stage.programs.start({ ...start, name: 'connect', cwd: stage.directory })
  const line = await news(program, 'listening', OPEN_MS)
  expect(
    typeof line['session'] === 'string' && typeof line['grant'] === 'string',
    'session and grant ids',
    line,
  )
  return { program, session: line['session'], grant: line['grant'] }
}

/** The first line of news of that kind, from line `from` on. */
async function news(
  program: Program,
  event: string,
  ms: number,
  from = 0,
): Promise<Record<string, unknown>> {
  return program.line(
    `the news "${event}"`,
    ms,
    (text) => {
      const line = readLine(text)
      return line?.['event'] === event ? line : undefined
    },
    from,
  )
}

/** Starts the vendor's tool: `count` reads (0: until cut), `interval` milliseconds apart. */
export function startReads(stage: Stage, count: number, interval: number): Program {
  const script = join(root, 'test/demo/vendor-reads.ts')
  return stage.programs.start({
    name: 'vendor-reads',
    command: process.execPath,
    args: [script, String(stage.ports.vendor), String(count), String(interval)],
    cwd: stage.directory,
  })
}

export interface Reading {
  readonly registers: readonly number[]
  /** Epoch milliseconds. */
  readonly at: number
}

/** What the tool read so far. */
export function readings(program: Program): Reading[] {
  return program.lines.flatMap((text) => {
    const line = readLine(text)
    const read = line?.['read']
    const at = line?.['at']
    return Array.isArray(read) && typeof at === 'number'
      ? [{ registers: read.map(Number), at }]
      : []
  })
}
