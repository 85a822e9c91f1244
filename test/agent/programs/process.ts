/** Starts target programs for tests and ends them by the child it holds. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { appendFileSync, chmodSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { endpoint } from '../../../agent-tunnel/agent/scope/address.ts'
import type { FourTuple } from '../../../agent-tunnel/agent/scope/address.ts'
import type { ProcessScope, Sighting } from '../../../agent-tunnel/agent/scope/owner.ts'

export interface Started extends AsyncDisposable {
  readonly child: ChildProcess
  readonly pid: number
  /** The first line it printed, as a number. */
  readonly port: number
  /** All that it has printed behind its first line. */
  said(): string
}

/**
 * Starts `program` (a file beside this one) and resolves with the port it prints. `bare`: `args` are all
 * the arguments that `exe` gets, and name the program themselves.
 */
export async function startProgram(
  program: string,
  args: readonly string[] = [],
  options: {
    readonly exe?: string
    readonly uid?: number
    readonly env?: NodeJS.ProcessEnv
    readonly bare?: boolean
  } = {},
): Promise<Started> {
  const path = fileURLToPath(new URL(program, import.meta.url))
  const bare = options.bare === true
  const child = spawn(options.exe ?? process.execPath, bare ? args : [path, ...args], {
    // Its standard input ends with this process, however that ends.
    stdio: ['pipe', 'pipe', 'inherit'],
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  })
  let printed = ''
  const first = Promise.withResolvers<string>()
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    printed += text
    if (printed.includes('\n')) first.resolve(printed.slice(0, printed.indexOf('\n')))
  })
  child.on('error', first.reject)
  child.on('close', (...how) => first.reject(new Error(`${program} ended: ${how.join(' ')}`)))
  const line = await first.promise
  return {
    child,
    pid: child.pid!,
    port: Number(line),
    said: () => printed.slice(line.length + 1),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** Starts server.py in `mode`, run by `exe`, a python3. */
export async function startServer(
  mode: string,
  options: {
    readonly exe?: string
    readonly port?: number
    readonly uid?: number
    readonly env?: NodeJS.ProcessEnv
  } = {},
): Promise<Started> {
  return startProgram('server.py', [mode, String(options.port ?? 0)], {
    exe: '/usr/bin/python3',
    ...options,
  })
}

export interface Executable extends Disposable {
  readonly path: string
  readonly sha256: string
}

/** Another executable that runs the same programs: this Node with a byte more at its end. */
export function copyOfNode(): Executable {
  return copyOf(process.execPath)
}

/** Another executable that does the same: `file` with a byte more at its end. Everybody may run it. */
export function copyOf(file: string): Executable {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-exe-'))
  const path = join(directory, 'other')
  chmodSync(directory, 0o755)
  copyFileSync(file, path)
  appendFileSync(path, '\n')
  return {
    path,
    sha256: sha256Of(path),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  }
}

export function sha256Of(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

/** The two ends of a connection, as its dialler sees them. */
export function tupleOf(socket: Socket): FourTuple {
  return {
    local: endpoint(socket.localAddress!, socket.localPort!)!,
    remote: endpoint(socket.remoteAddress!, socket.remotePort!)!,
  }
}

/** Who accepted; throws why not. */
export async function observe(
  scope: ProcessScope,
  socket: Socket,
  deadlineMs = 60_000,
): Promise<Sighting> {
  const seen = await scope.observeAccepted(tupleOf(socket), deadlineMs)
  if (!seen.ok) throw new Error(seen.why)
  return seen.sighting
}

/** A connection to `port`, established. */
export async function dial(port: number, host = '127.0.0.1'): Promise<Socket & AsyncDisposable> {
  const socket = connect({ port, host, allowHalfOpen: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return Object.assign(socket, {
    [Symbol.asyncDispose]: async () => {
      socket.destroy()
    },
  })
}
