/**
 * The separate processes of the demo: started, listened to, ended by process id, and never left behind.
 * A program's stdout is kept line by line; what it says on stderr goes to a file that a failure names.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { StepFailed, describe } from './failure.ts'
import { processTree } from './proc.ts'

export interface Program {
  readonly name: string
  readonly pid: number
  /** Where its stderr goes. */
  readonly errors: string
  readonly lines: readonly string[]
  /** Exit code, or the negative signal's name; undefined while it runs. */
  readonly ended: number | NodeJS.Signals | undefined
  /** Resolves with the first line, from index `from` on, that `wanted` accepts; StepFailed after `ms` or if it ends. */
  line<T>(
    what: string,
    ms: number,
    wanted: (line: string) => T | undefined,
    from?: number,
  ): Promise<T>
  /** Resolves when it has ended. */
  readonly end: Promise<number | NodeJS.Signals>
  /** Asks it and what it started to end; after five seconds ends them. */
  stop(): Promise<void>
  /** Ends it and what it started at once, as a power cut would. */
  kill(): Promise<void>
}

export interface Start {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
}

/** Everything that was started; `stopAll` ends what still runs, newest first. */
export class Programs {
  readonly #directory: string
  readonly #running: Program[] = []
  #closing = false

  constructor(directory: string) {
    this.#directory = directory
  }

  start(start: Start): Program {
    if (this.#closing) throw new StepFailed(`${start.name} to start`, 'the demo is ending')
    const errors = join(this.#directory, `${start.name}.err`)
    const fd = openSync(errors, 'a')
    const child = spawn(start.command, start.args, {
      cwd: start.cwd,
      env: { ...process.env, ...start.env },
      stdio: ['ignore', 'pipe', fd],
    })
    closeSync(fd)
    const program = new Running(start.name, child, errors)
    this.#running.push(program)
    return program
  }

  async stopAll(): Promise<void> {
    this.#closing = true
    for (const program of this.#running.toReversed())
      if (program.ended === undefined) await program.stop()
  }

  /** For the moment in which this process ends, however it came to it: whatever still runs ends at once. */
  killAll(): void {
    for (const program of this.#running)
      if (program.ended === undefined)
        for (const pid of processTree(program.pid)) signal(pid, 'SIGKILL')
  }
}

const STOP_MS = 5_000

class Running implements Program {
  readonly name: string
  readonly pid: number
  readonly errors: string
  readonly lines: string[] = []
  readonly end: Promise<number | NodeJS.Signals>
  ended: number | NodeJS.Signals | undefined
  readonly #changed = new Set<() => void>()

  constructor(name: string, child: ChildProcess, errors: string) {
    this.name = name
    this.errors = errors
    this.pid = child.pid ?? 0
    const { promise, resolve } = Promise.withResolvers<number | NodeJS.Signals>()
    this.end = promise
    this.#read(child)
    child.on('error', (error) => this.lines.push(`could not start: ${error.message}`))
    child.on('close', (code, how) => {
      this.ended = code ?? how ?? 1
      resolve(this.ended)
      this.#tell()
    })
  }

  #read(child: ChildProcess): void {
    let held = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const parts = (held + text).split('\n')
      held = parts.pop() ?? ''
      this.lines.push(...parts)
      this.#tell()
    })
  }

  #tell(): void {
    for (const wake of this.#changed) wake()
  }

  async line<T>(
    what: string,
    ms: number,
    wanted: (line: string) => T | undefined,
    from = 0,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    let at = from
    const look = (): void => {
      while (at < this.lines.length) {
        const found = wanted(this.lines[at++] ?? '')
        if (found !== undefined) {
          resolve(found)
          return
        }
      }
      if (this.ended !== undefined)
        reject(new StepFailed(`${what} from ${this.name}`, `it ended: ${this.#last()}`))
    }
    const timer = setTimeout(
      () => reject(new StepFailed(`${what} from ${this.name}`, this.#last())),
      ms,
    )
    this.#changed.add(look)
    look()
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      this.#changed.delete(look)
    }
  }

  #last(): string {
    const said = this.lines.slice(-3).join(' | ')
    const errors = readFileSync(this.errors, 'utf8').trim().split('\n').slice(-6).join(' | ')
    return describe(`exit ${this.ended ?? 'none'}, out: ${said}, err: ${errors}`)
  }

  async stop(): Promise<void> {
    if (this.ended !== undefined) return
    const tree = processTree(this.pid)
    signal(this.pid, 'SIGTERM')
    const timer = setTimeout(() => {
      for (const pid of new Set([...tree, ...processTree(this.pid)])) signal(pid, 'SIGKILL')
    }, STOP_MS)
    await this.end
    clearTimeout(timer)
  }

  async kill(): Promise<void> {
    if (this.ended !== undefined) return
    for (const pid of processTree(this.pid)) signal(pid, 'SIGKILL')
    await this.end
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has ended by itself, which is what was wanted.
  }
}

/** The JSON object on a line, or undefined. */
export function readLine(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? { ...value } : undefined
  } catch {
    return undefined
  }
}
