/**
 * A device whose key is in a TPM 2.0, by the TPM's own PKCS#11 module: made as docs/agent.md says, then enrolled, connected,
 * served and renewed with. The TPM is swtpm's, behind a socket.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Directory } from './device.ts'
import { DEVICE, FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { startProgram } from './programs/process.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const inLibraries = (name: string) =>
  ['x86_64', 'aarch64']
    .map((machine) => `/usr/lib/${machine}-linux-gnu/${name}`)
    .find((path) => existsSync(path))
const MODULE = inLibraries('libtpm2_pkcs11.so.1')
const ready =
  MODULE !== undefined &&
  inLibraries('engines-3/pkcs11.so') !== undefined &&
  ['/usr/bin/setpriv', '/usr/bin/swtpm', '/usr/bin/pkcs11-tool'].every((path) => existsSync(path))
const PIN = '123456'
/** In the data directory of the agent, which is its user's. */
const STORE = 'data/tpm2'

/** A TPM below a folder, whose state outlasts its power. */
class Tpm implements AsyncDisposable {
  readonly #folder: string
  #running: ChildProcess | undefined

  constructor(folder: string) {
    this.#folder = folder
    mkdirSync(join(folder, 'state'))
    mkdirSync(join(folder, STORE), { recursive: true, mode: 0o700 })
  }

  /** What the module finds it by. */
  get env(): NodeJS.ProcessEnv {
    const [store, path] = [STORE, 'tpm'].map((name) => join(this.#folder, name))
    return { ...process.env, TPM2_PKCS11_STORE: store, TPM2_PKCS11_TCTI: `swtpm:path=${path}` }
  }

  async on(): Promise<void> {
    const path = join(this.#folder, 'tpm')
    const listening = `${path}.pid`
    for (const old of [path, `${path}.ctrl`, listening]) rmSync(old, { force: true })
    const words = [
      ['socket', '--tpm2', '--tpmstate', `dir=${join(this.#folder, 'state')}`],
      ['--server', `type=unixio,path=${path}`, '--ctrl', `type=unixio,path=${path}.ctrl`],
      ['--flags', 'not-need-init,startup-clear', '--pid', `file=${listening}`],
    ]
    // Whatever becomes of this process, the TPM ends with it.
    const bound = ['--pdeathsig', 'KILL', '/usr/bin/swtpm', ...words.flat()]
    this.#running = spawn('/usr/bin/setpriv', bound, { stdio: 'ignore' })
    // It writes that down behind listening on both.
    await holds(() => expect(existsSync(listening)).toBe(true))
  }

  /** Its power goes. */
  async off(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    if (running === undefined) return
    const ended = once(running, 'exit')
    running.kill('SIGKILL')
    await ended
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.off()
  }
}

describe.skipIf(!ready)(
  'a TPM (needs swtpm, libtpm2-pkcs11-1, opensc, libengine-pkcs11-openssl)',
  () => {
    test('its key is made there; the device enrols, connects, serves and renews with it', async () => {
      await using gateway = await FakeGateway.start()
      using home = new Directory()
      const at = (name: string) => join(home.path, name)
      await using tpm = new Tpm(home.path)
      const { env } = tpm
      await tpm.on()
      const make = (...words: string[]) => {
        const made = spawnSync('pkcs11-tool', ['--module', MODULE!, ...words], {
          encoding: 'utf8',
          env,
          timeout: 60_000,
        })
        expect(made.status, made.error?.message ?? made.stderr).toBe(0)
      }
      const own = ['--token-label', DEVICE, '--login']
      make('--init-token', '--slot-index', '0', '--label', DEVICE, '--so-pin', '567890')
      make(...own, '--login-type', 'so', '--so-pin', '567890', '--init-pin', '--pin', PIN)
      const key = ['--key-type', 'EC:prime256v1', '--label', 'device', '--id', '01']
      make(...own, '--pin', PIN, '--keypairgen', ...key)
      writeFileSync(at('pin'), `${PIN}\n`, { mode: 0o600 })

      await using target = await startProgram('target.ts')
      const data = at('data')
      const words = [
        ['agent', 'enroll', `--gateway=${gateway.url}`, `--device=${DEVICE}`],
        [`--ca-sha256=${gateway.pin}`, `--data=${data}`, `--pkcs11-module=${MODULE!}`],
        [`--pkcs11-uri=pkcs11:token=${DEVICE};object=device`, `--pkcs11-pin-file=${at('pin')}`],
        ['--target', `plc=tcp:127.0.0.1:${target.port}`],
      ].flat()
      const enrolling = spawn(process.execPath, [bin, ...words], {
        env: { ...env, SALLYPORT_TOKEN: await gateway.bench.token() },
      })
      onTestFinished(() => void enrolling.kill('SIGKILL'))
      let said = ''
      enrolling.stderr.on('data', (text: Buffer) => (said += text.toString()))
      const [code] = (await once(enrolling, 'close')) as [number | null]
      expect(code, said).toBe(0)

      // A process that ends leaves what it had loaded there, which on a device the kernel (/dev/tpmrm0) takes out.
      await tpm.off()
      await tpm.on()
      const agent = spawn(process.execPath, [bin, 'agent', 'run', '--data', data], { env })
      onTestFinished(() => void agent.kill('SIGKILL'))
      const ended = once(agent, 'exit')
      let log = ''
      agent.stderr.on('data', (text: Buffer) => (log += text.toString()))
      try {
        const held = await gateway.nextTunnel()
        const opened = await openStream(held, 'plc')
        proceed(opened)
        opened.stream.write(Buffer.from('through'))
        await holds(() => expect(opened.received.toString()).toBe('through'))
        opened.stream.reset('done')
        gateway.bench.now += 1000
        held.control.write(Buffer.from('{"type":"renew"}\n'))
        expect((await gateway.nextTunnel()).serial, log).not.toBe(held.serial)
      } finally {
        agent.kill('SIGTERM')
        await soon('the agent stops', ended)
      }
      const files = readdirSync(data, { recursive: true, encoding: 'utf8' })
      expect(files.filter((name) => name.endsWith('key.pem'))).toEqual([])
      expect(log + readFileSync(join(data, 'agent.json'), 'utf8')).not.toContain(PIN)
    })
  },
)
