/** Starts target programs for tests and ends them by the child it holds. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { appendFileSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface Started extends AsyncDisposable {
  readonly child: ChildProcess
  readonly pid: number
  /** The first line it printed, as a number. */
  readonly port: number
}

/** Starts `program` (a file beside this one) and resolves with the port it prints. */
export async function startProgram(
  program: string,
  args: readonly string[] = [],
  options: { readonly exe?: string; readonly uid?: number } = {},
): Promise<Started> {
  const path = fileURLToPath(new URL(program, import.meta.url))
  const child = spawn(options.exe ?? process.execPath, [path, ...args], {
    // Its standard input ends with this process, however that ends.
    stdio: ['pipe', 'pipe', 'inherit'],
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  })
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string]
  return {
    child,
    pid: child.pid!,
    port: Number(line),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}

export interface Executable extends Disposable {
  readonly path: string
  readonly sha256: string
}

/** Another executable that runs the same programs: this Node with a byte more at its end. */
export function copyOfNode(): Executable {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-exe-'))
  const path = join(directory, 'other')
  copyFileSync(process.execPath, path)
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
