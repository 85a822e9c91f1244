/**
 * Ends what would never end, and says what it was. A test's own limit is kept by its worker's event loop: a synchronous
 * child that never returns, an endless loop or an import that waits passes over it, and the whole run waits for ever.
 * A file that has told nothing for six minutes, or for as long as one of its rows may take, has its worker's processes shown, with
 * what each of them waits for, and the worker's children killed, so that the call that waited for one of them fails by name; two
 * minutes later the worker goes.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { ReportedHookContext, Reporter, TestCase, TestModule } from 'vitest/node'

interface Limits {
  readonly lookMs: number
  /** How long a file may tell nothing before its worker's children are ended, and then the worker. */
  readonly childrenMs: number
  readonly workerMs: number
  /** How long a row may go on past a limit of its own, to clean up. */
  readonly lateMs: number
}

/** Above what any hook, and any test without a limit of its own, may take (vitest.config.ts). */
const LIMITS: Limits = { lookMs: 15_000, childrenMs: 360_000, workerMs: 480_000, lateMs: 60_000 }

/** How long a process may take to say where it is. */
const ASKING_MS = 30_000

/** From a worker's start to its first file, at most: an older one is another file's. */
const STARTUP_MS = 60_000

interface Seen {
  readonly queuedMs: number
  /** The longest that a row of it may take: of one that waits in a call it is not heard that it began. */
  readonly mayMs: number
  readonly atMs: number
  readonly doing: string
  /** For how long it was looked at and told nothing: time in which nobody could run is not silence. */
  silentMs: number
  shown: boolean
}

export default class Stuck implements Reporter {
  readonly #running = new Map<string, Seen>()
  /** Of a file that has ended, what its last rows gave may be told afterwards. */
  readonly #ended = new Set<string>()
  readonly #limits: Limits
  readonly #timer: NodeJS.Timeout
  #lookedMs = performance.now()

  /** What the configuration gives beside the reporter's name. */
  constructor(limits: Partial<Limits> = {}) {
    this.#limits = { ...LIMITS, ...limits }
    this.#timer = setInterval(() => this.#look(), this.#limits.lookMs).unref()
  }

  onTestModuleQueued(module: TestModule): void {
    this.#sign(module, 'its import began')
  }
  onTestModuleStart(module: TestModule): void {
    const limits = [...module.children.allTests()].map(({ options }) => options.timeout ?? 0)
    this.#sign(module, 'its rows began', Math.max(0, ...limits))
  }
  onTestCaseReady(test: TestCase): void {
    this.#sign(test.module, `${test.fullName} began`)
  }
  onTestCaseResult(test: TestCase): void {
    this.#sign(test.module, `${test.fullName} ended`)
  }
  onHookStart({ name, entity }: ReportedHookContext): void {
    this.#sign(entity.type === 'module' ? entity : entity.module, `${name} began`)
  }
  onTestModuleEnd(module: TestModule): void {
    this.#ended.add(module.relativeModuleId)
    this.#running.delete(module.relativeModuleId)
  }
  onTestRunEnd(): void {
    clearInterval(this.#timer)
  }

  #sign(module: TestModule, doing: string, mayMs = 0): void {
    const file = module.relativeModuleId
    if (this.#ended.has(file)) return
    const atMs = performance.now()
    const before = this.#running.get(file)
    this.#running.set(file, {
      queuedMs: before?.queuedMs ?? atMs,
      mayMs: Math.max(before?.mayMs ?? 0, mayMs),
      atMs,
      doing,
      silentMs: 0,
      shown: false,
    })
  }

  #look(): void {
    const { lookMs, childrenMs, workerMs, lateMs } = this.#limits
    const now = performance.now()
    // A machine that stood still did so for the workers too.
    const passedMs = Math.min(now - this.#lookedMs, 2 * lookMs)
    this.#lookedMs = now
    for (const [file, seen] of this.#running) {
      seen.silentMs += passedMs
      const patienceMs = Math.max(childrenMs, seen.mayMs + lateMs)
      if (seen.silentMs < patienceMs) continue
      const workers = workersOf(seen, now)
      if (!seen.shown) {
        seen.shown = true
        console.log(
          `stuck: ${file}, silent for ${Math.round(seen.silentMs / 1_000)} s since ${seen.doing}`,
        )
        for (const worker of workers) void free(worker)
      } else if (seen.silentMs >= patienceMs + workerMs - childrenMs) {
        for (const { pid } of workers) end(pid)
        // Whatever vitest makes of that: this one has been dealt with.
        this.#running.delete(file)
        if (workers.length === 0) this.#lost()
      }
    }
  }

  /** A file runs and there is no worker: vitest waits for one that has gone. */
  #lost(): void {
    if (processes(process.pid).some(({ parent }) => parent === process.pid)) return
    console.log('stuck: no worker is left')
    process.exit(1)
  }
}

/**
 * The workers that may be the file's: one younger than the silence belongs to another, and so does one that was there long before
 * the file, unless there is no other.
 */
function workersOf({ atMs, queuedMs }: Seen, now: number): readonly Process[] {
  const all = processes(process.pid).filter(({ parent }) => parent === process.pid)
  const old = all.filter(({ ageMs }) => ageMs >= now - atMs)
  const own = old.filter(({ ageMs }) => ageMs <= now - queuedMs + STARTUP_MS)
  return own.length > 0 ? own : old
}

/** Shows what a worker does, and ends its children, whom a call of it may wait for. */
async function free(worker: Process): Promise<void> {
  const children = processes(worker.pid)
  for (const { pid, ageMs, does } of [worker, ...children])
    console.log(`  ${pid}, ${Math.round(ageMs / 1_000)} s: ${does}`)
  for (const { pid } of children) end(pid)
  for (const frame of await frames(worker.pid)) console.log(`  ${worker.pid} is at ${frame}`)
}

interface Process {
  readonly pid: number
  readonly parent: number
  readonly ageMs: number
  /** Its state, what it waits for in the kernel, and its command line. */
  readonly does: string
}

/** All descendants of a process, children before theirs. */
function processes(root: number): readonly Process[] {
  const all = readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? [look(name)] : []))
  const known = all.filter((one) => one !== undefined)
  const found: Process[] = []
  for (let wanted = [root]; wanted.length > 0;) {
    const next = known.filter(({ parent }) => wanted.includes(parent))
    found.push(...next)
    wanted = next.map(({ pid }) => pid)
  }
  return found
}

/** proc(5): the fields behind the name, which may hold anything, are counted from its last bracket. */
function look(pid: string): Process | undefined {
  const text = (name: string) => readFileSync(`/proc/${pid}/${name}`, 'utf8')
  try {
    const stat = text('stat')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const upMs = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1_000
    // Linux counts it in hundredths of a second for everybody (USER_HZ).
    const ageMs = upMs - Number(fields[19]) * 10
    const does = `${fields[0]} ${text('wchan')} ${text('cmdline').replaceAll('\0', ' ').slice(0, 200)}`
    return { pid: Number(pid), parent: Number(fields[1]), ageMs, does }
  } catch {
    // Gone meanwhile.
    return undefined
  }
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // Gone meanwhile.
  }
}

/**
 * Where the JavaScript of a process is, a line each, innermost first: asked through its inspector, which SIGUSR1 opens.
 * Nothing where it does not answer: it waits in a call, or another process has the inspector's port.
 */
async function frames(pid: number): Promise<readonly string[]> {
  const signal = AbortSignal.timeout(ASKING_MS)
  const { promise, resolve } = Promise.withResolvers<readonly string[]>()
  signal.addEventListener('abort', () => resolve([]))
  try {
    process.kill(pid, 'SIGUSR1')
    const socket = new WebSocket(await inspector(signal))
    const scripts = new Map<string, string>()
    socket.addEventListener('message', ({ data }) => {
      const { method, params } = JSON.parse(String(data)) as Told
      if (method === 'Debugger.scriptParsed') scripts.set(params.scriptId, params.url)
      if (method !== 'Debugger.paused') return
      const line = ({ functionName, location: { scriptId, lineNumber } }: Frame) =>
        `${functionName} ${scripts.get(scriptId)}:${lineNumber + 1}`
      resolve(params.callFrames.map(line))
      socket.close()
    })
    socket.addEventListener('error', () => resolve([]))
    socket.addEventListener('open', () => {
      for (const [id, asked] of ['Debugger.enable', 'Debugger.pause'].entries())
        socket.send(JSON.stringify({ id, method: asked }))
    })
  } catch {
    resolve([])
  }
  return promise
}

/** Chrome DevTools Protocol, Debugger: what is read of its events. */
type Told =
  | { method: 'Debugger.scriptParsed'; params: { scriptId: string; url: string } }
  | { method: 'Debugger.paused'; params: { callFrames: readonly Frame[] } }

interface Frame {
  readonly functionName: string
  readonly location: { readonly scriptId: string; readonly lineNumber: number }
}

/** The address of the inspector that the last signal opened, on the port that is this process's and its workers'. */
async function inspector(signal: AbortSignal): Promise<string> {
  for (;;) {
    try {
      const list = await (
        await fetch(`http://127.0.0.1:${process.debugPort}/json`, { signal })
      ).json()
      return (list as [{ webSocketDebuggerUrl: string }])[0].webSocketDebuggerUrl
    } catch (error) {
      if (signal.aborted) throw error
      await new Promise((done) => setTimeout(done, 50))
    }
  }
}
