/** A service manager for an agent in one file: what ends is started again, with whatever code it ended. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

export class Service implements AsyncDisposable {
  /** Exit codes so far; null: a signal ended it. */
  readonly ends: (number | null)[] = []
  /** Its log. */
  said = ''
  readonly #words: readonly string[]
  readonly #data: string
  #child: ChildProcess | undefined
  #stopped = false

  /** Starts the agent in `file`, which is what is installed, on the data directory `data`; `node`: what runs it; null: it is an executable. */
  constructor(file: string, data: string, node: string | null = process.execPath) {
    this.#words = [...(node === null ? [] : [node]), file, 'run', '--data', data]
    this.#data = resolve(data)
    this.#start()
  }

  #start(): void {
    const [program = '', ...words] = this.#words
    const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.said += text))
    child.once('close', (code) => {
      this.ends.push(code)
      if (!this.#stopped) this.#start()
    })
    this.#child = child
  }

  kill(): void {
    this.#child?.kill('SIGKILL')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    const child = this.#child
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'close')
      child.kill('SIGKILL')
      await ended
    }
    for (const watch of watchesOf(this.#data)) process.kill(-watch, 'SIGKILL')
  }
}

/** Shells that watch a trial on `data` and outlive the agent, by an hour where it had one to be healthy: each a group. */
function watchesOf(data: string): number[] {
  const folder = join(data, 'update')
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && wordsOf(pid).at(-1) === folder)
    .filter((pid) => wordsOf(pid)[0] === '/bin/sh')
}

function wordsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  } catch {
    // It has ended since it was listed.
    return []
  }
}
