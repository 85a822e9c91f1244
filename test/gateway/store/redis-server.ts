/** A redis-server of the tests' own: a free loopback port, a folder of its own, ended by its pid. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, until } from '../../support/node.ts'
import { connect } from 'node:net'

export const haveRedis = spawnSync('redis-server', ['--version']).status === 0

const DURABLE = { appendonly: 'yes', appendfsync: 'always', 'maxmemory-policy': 'noeviction' }

export class RedisServer implements AsyncDisposable {
  readonly port: number
  readonly #folder = mkdtempSync(join(tmpdir(), 'sallyport-redis-'))
  #settings: Readonly<Record<string, string>>
  #process: ChildProcess | undefined

  private constructor(port: number, settings: Readonly<Record<string, string>>) {
    this.port = port
    this.#settings = settings
  }
  static async start(settings: Readonly<Record<string, string>> = {}): Promise<RedisServer> {
    const server = new RedisServer(await freePort(), { ...DURABLE, ...settings })
    await server.run()
    return server
  }
  get place() {
    return { host: '127.0.0.1', port: this.port }
  }
  async run(change: Readonly<Record<string, string>> = {}): Promise<void> {
    this.#settings = { ...this.#settings, ...change }
    const port = String(this.port)
    const over = 'tls-cert-file' in this.#settings ? { port: '0', 'tls-port': port } : { port }
    const own = { bind: '127.0.0.1', ...over, dir: this.#folder, save: '' }
    const args = Object.entries({ ...own, ...this.#settings }).flatMap(([name, value]) => [
      `--${name}`,
      value,
    ])
    this.#process = spawn('redis-server', args, { stdio: 'ignore' })
    await until('redis-server accepts connections', () => accepts(this.port))
  }
  /** As a power cut does. */
  async kill(): Promise<void> {
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await gone
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
