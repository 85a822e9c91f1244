/** The command as a person runs it: a child process, its answer as JSON, its exit code. */
import { spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import { StepFailed, describe } from './failure.ts'

export const root = resolve(import.meta.dirname, '../..')
const bin = join(root, 'cli/bin.mjs')
const TIMEOUT_MS = 60_000

/** What the command ended with. */
export interface Outcome {
  readonly args: readonly string[]
  readonly code: number
  readonly out: string
  readonly err: string
}

/** An error as `--json` prints it on stderr. */
export interface Told {
  readonly code: string
  readonly message: string
  readonly why?: string
  readonly next_step?: string
  readonly id?: string
}

/** The command with one home for its sign-ins. */
export class Sallyport {
  readonly #home: string

  constructor(home: string) {
    this.#home = home
  }

  /** Command and arguments to start it with, for a program that stays. */
  start(
    profile: string,
    args: readonly string[],
  ): { command: string; args: string[]; env: Record<string, string> } {
    return {
      command: process.execPath,
      args: [bin, '--profile', profile, '--json', ...args],
      // Many short runs of one program: what Node compiled for one, the next takes from here.
      env: { SALLYPORT_HOME: this.#home, NODE_COMPILE_CACHE: join(this.#home, 'compiled') },
    }
  }

  /** Runs it to its end, whatever that is. */
  async run(profile: string, args: readonly string[]): Promise<Outcome> {
    const start = this.start(profile, args)
    const child = spawn(start.command, start.args, {
      cwd: root,
      env: { ...process.env, ...start.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    })
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const { promise, resolve: done, reject } = Promise.withResolvers<number>()
    child.on('error', reject)
    child.on('close', (code) => done(code ?? 1))
    return { args, code: await promise, out, err }
  }

  /** Runs it; it must succeed. Gives what it printed as JSON. */
  async ask(profile: string, ...args: string[]): Promise<unknown> {
    const outcome = await this.run(profile, args)
    if (outcome.code !== 0)
      throw new StepFailed(
        `sallyport ${args.join(' ')} to succeed`,
        `exit ${outcome.code}: ${describe(outcome.err)}`,
      )
    return parse(outcome)
  }

  /** Runs it; it must end with `code`. Gives the error it told. */
  async refused(profile: string, code: number, ...args: string[]): Promise<Told> {
    const outcome = await this.run(profile, args)
    const told = readTold(outcome.err)
    if (outcome.code !== code || told === undefined)
      throw new StepFailed(
        `sallyport ${args.join(' ')} to be refused with exit ${code}`,
        `exit ${outcome.code}: ${describe(outcome.err || outcome.out)}`,
      )
    return told
  }
}

function parse(outcome: Outcome): unknown {
  try {
    return JSON.parse(outcome.out)
  } catch {
    throw new StepFailed(`JSON from sallyport ${outcome.args.join(' ')}`, describe(outcome.out))
  }
}

/** The error in what a command wrote on stderr: the line that is `{"error":{…}}`. */
function readTold(err: string): Told | undefined {
  for (const line of err.split('\n').toReversed()) {
    if (!line.startsWith('{"error"')) continue
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null && 'error' in value) return value.error as Told
  }
  return undefined
}
