/**
 * A spawned program: hashed and decided on before it runs, started in a sandbox that ends with the
 * stream, with a terminal or with pipes. Its end is told, with its code or signal, after all it has said.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { readInto, SlabWriter } from '#tunnel'
import type { TunnelStream } from '#tunnel'
import { Refused, sizeOf } from '../ask.ts'
import type { Ask } from '../ask.ts'
import { messageOf } from '../errors.ts'
import { readRecord, writeRecord } from '../json.ts'
import type { Kind, Line, LineRoom, Session } from '../line.ts'
import { calls } from './calls.ts'
import type { Limits, Spawned } from './declaration.ts'
import { Program } from './program.ts'
import { openPty } from './pty.ts'
import type { Pty } from './pty.ts'
import { Sandbox, TOOLS_PATH } from './sandbox.ts'
import { launched } from './launched.ts'
import { launcherCommand } from './launcher.ts'
import type { LaunchSpec } from './spec.ts'

/** Each has a sandbox, and its own processes within their limits. */
const MAX_SPAWNED = 32
/** From the program's last word to a stream that its client has not closed. */
const FAREWELL_MS = 5000
const EOT = Uint8Array.of(4)
const MB = 1024 * 1024
/** setrlimit(2), the same on every architecture Node runs on under Linux. */
const RLIMIT = { cpu: 0, fsize: 1, core: 4, nproc: 6, nofile: 7, as: 9 } as const

let spawnedNow = 0

export const spawned: Kind<Spawned> = {
  stream: 'spawn',
  async open(declared, ask, room) {
    if (calls() === undefined)
      throw new Refused('spawn.unavailable', 'this runtime cannot call libc')
    if (spawnedNow >= MAX_SPAWNED)
      throw new Refused('agent.full', `${MAX_SPAWNED} spawned programs are running`)
    spawnedNow++
    let program: Program | undefined
    try {
      program = await Program.open(declared, room.scope.executables, 'accepted')
      const sandbox = await Sandbox.make(program.user.uid, declared.dataDir)
      return new SpawnLine(declared, ask, room, program, sandbox)
    } catch (error) {
      spawnedNow--
      program?.[Symbol.dispose]()
      throw error
    }
  },
}

/** What the program reads and writes. */
interface Ends {
  readonly reader: Readable
  readonly writer: Writable
}

class SpawnLine implements Line {
  readonly observed
  readonly says: Readonly<Record<string, unknown>>
  readonly #declared: Spawned
  readonly #ask: Ask
  readonly #room: LineRoom
  readonly #program: Program
  readonly #sandbox: Sandbox
  #child: ChildProcess | undefined
  #pty: Pty | undefined
  #destroyed = false

  constructor(declared: Spawned, ask: Ask, room: LineRoom, program: Program, sandbox: Sandbox) {
    this.#declared = declared
    this.#ask = ask
    this.#room = room
    this.#program = program
    this.#sandbox = sandbox
    this.observed = program.observed
    this.says = { terminal: declared.terminal && ask.terminal !== undefined }
  }

  flow(session: Session): void {
    const { stream, end, over } = session
    stream.onClose = (reason) => {
      this.destroy()
      // What the session held is over when nothing of the program is left.
      void this.#sandbox.end().then(() => over(reason))
    }
    this.#run(session).catch((error: unknown) => {
      if (error instanceof Refused) end(error.code, error.message)
      else end('spawn.failed', messageOf(error))
    })
  }

  destroy(): void {
    if (this.#destroyed) return
    this.#destroyed = true
    spawnedNow--
    this.#sandbox.kill()
    this.#child?.kill('SIGKILL')
    this.#pty?.hangUp()
    this.#pty?.master.destroy()
    this.#program[Symbol.dispose]()
  }

  async #run(session: Session): Promise<void> {
    const { stream } = session
    const { terminal } = this.#ask
    if (this.#declared.terminal && terminal !== undefined)
      this.#pty = openPty(this.#program.user.uid, terminal)
    const child = this.#start()
    this.#child = child
    const exited = exitOf(child)
    const ends = this.#ends(child)
    const writer = this.#listen(stream, ends)
    const { begin, said } = this.#speak(stream, ends)
    await launched(child, this.#launchSpec(), this.#program.id)
    // Nobody can write to a file that runs: what was hashed is what was executed.
    if (!(await this.#program.unchanged()))
      throw new Refused('spawn.program', 'the program was changed while it was being started')
    this.#room.log('info', 'spawn.started', {
      session: this.#ask.session,
      process: this.#ask.process,
      exe: this.observed.exe,
      uid: this.#program.user.uid,
    })
    begin()
    const how = await exited
    // What it left behind ends with it, and only then is all said.
    await this.#sandbox.end()
    this.#pty?.hangUp()
    await said
    if (this.#destroyed) return
    writer.end()
    stream.signal(writeRecord({ t: 'exit', ...how }))
    stream.end()
    this.#room.clock.after(FAREWELL_MS, () =>
      stream.reset('target.closed', 'the program has ended'),
    )
  }

  /** The launcher, on its way to become the program. */
  #start(): ChildProcess {
    const launcher = launcherCommand()
    const { file, args } = this.#sandbox.enter(launcher.words)
    const own = this.#pty?.slave ?? 'pipe'
    const itself = launcher.file === undefined ? undefined : openSync(launcher.file, 'r')
    try {
      // The last is OWN_FD.
      const more = itself === undefined ? [] : [itself]
      return spawn(file, args, {
        cwd: '/',
        env: { PATH: TOOLS_PATH },
        stdio: [own, own, 'pipe', this.#program.fd, 'pipe', ...more],
      })
    } finally {
      if (itself !== undefined) closeSync(itself)
    }
  }

  #ends({ stdin, stdout }: ChildProcess): Ends {
    if (this.#pty !== undefined) return { reader: this.#pty.master, writer: this.#pty.master }
    if (stdin === null || stdout === null) throw new Error('the program has no standard streams')
    return { reader: stdout, writer: stdin }
  }

  #launchSpec(): LaunchSpec {
    const { argv, cwd, limits } = this.#declared
    const { user } = this.#program
    const own = user.uid === process.getuid?.()
    return {
      argv,
      env: this.#environment(),
      cwd,
      user: own ? null : { uid: user.uid, gid: user.gid },
      terminal: this.#pty !== undefined,
      limits: limitsFor(limits),
    }
  }

  #environment(): readonly string[] {
    const { name, home } = this.#program.user
    const { terminal } = this.#ask
    const variables = new Map([
      ['PATH', '/usr/local/bin:/usr/bin:/bin'],
      ['HOME', home],
      ['USER', name],
      ['LOGNAME', name],
      ...(this.#pty !== undefined && terminal !== undefined
        ? ([['TERM', terminal.term]] as const)
        : []),
      ...this.#declared.env,
    ])
    return [...variables].map(([variable, value]) => `${variable}=${value}`)
  }

  /** What comes for the program. */
  #listen(stream: TunnelStream, { writer }: Ends): SlabWriter {
    // A program that does not read its input, or has ended, is no failure of the stream.
    writer.on('error', () => {})
    let owed = 0
    const slabs = new SlabWriter(writer, (bytes) => {
      // The end of file that a terminal is told is nobody's credit.
      const back = Math.min(bytes, owed)
      owed -= back
      if (!this.#destroyed) stream.consumed(back)
    })
    stream.onSignal = (payload) => {
      const signal = readRecord(payload) ?? {}
      const size = signal['t'] === 'winsize' ? sizeOf(signal) : undefined
      if (size !== undefined) this.#pty?.resize(size)
    }
    stream.onEnd = () => {
      // A terminal has no half-close; this is what says "no more" on one.
      if (this.#pty !== undefined) slabs.write(EOT)
      else slabs.end()
    }
    stream.onData = (chunk) => {
      owed += chunk.length
      slabs.write(chunk)
    }
    return slabs
  }

  /**
   * What the program says: kept until `begin`, then passed on; `said` resolves when it has said all. It
   * is heard from the start, because what nobody hears is thrown away when the program ends.
   */
  #speak(stream: TunnelStream, { reader }: Ends): { begin: () => void; said: Promise<void> } {
    const { promise, resolve } = Promise.withResolvers<void>()
    let early: Uint8Array[] | undefined = []
    const pass = (chunk: Uint8Array) => {
      if (!this.#destroyed && !stream.write(chunk)) reader.pause()
    }
    readInto(reader, (chunk) => {
      if (early === undefined) return pass(chunk)
      early.push(Uint8Array.from(chunk))
      reader.pause()
    })
    reader.once('end', resolve)
    // The other side of a terminal is closed: EIO.
    reader.once('error', resolve)
    reader.once('close', resolve)
    reader.resume()
    const begin = () => {
      const kept = early ?? []
      early = undefined
      stream.onDrain = () => void reader.resume()
      reader.resume()
      for (const chunk of kept) pass(chunk)
    }
    return { begin, said: promise }
  }
}

/** How it ended: a code, or the signal that killed it. */
type Exit = { readonly code: number } | { readonly signal: string }

function exitOf(child: ChildProcess): Promise<Exit> {
  const { promise, resolve, reject } = Promise.withResolvers<Exit>()
  child.once('error', (error) => reject(new Error(`nsenter: ${error.message}`)))
  child.once('exit', (code, signal) => resolve(signal === null ? { code: code ?? 0 } : { signal }))
  promise.catch(() => {})
  return promise
}

function limitsFor({ processes, files, memoryMb, fileMb, cpuS }: Limits): LaunchSpec['limits'] {
  const all: readonly (readonly [number, number | null])[] = [
    [RLIMIT.core, 0],
    [RLIMIT.nproc, processes],
    [RLIMIT.nofile, files],
    [RLIMIT.as, memoryMb === null ? null : memoryMb * MB],
    [RLIMIT.fsize, fileMb === null ? null : fileMb * MB],
    [RLIMIT.cpu, cpuS],
  ]
  return all.flatMap(([resource, most]) => (most === null ? [] : [{ resource, most }]))
}
