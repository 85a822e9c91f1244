/**
 * A device whose key is in a PKCS#11 token: enrolled, connected and renewed with it, against SoftHSM2 through OpenSSL's
 * engine, as a process of its own, because a process has one engine and one token for good.
 */
import { spawn, spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig, printConfig } from '../../agent-tunnel/agent/config.ts'
import { Directory } from './device.ts'
import { DEVICE, FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import type { Held } from './gateway.ts'
import { startProgram } from './programs/process.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const LIBRARY = [
  '/usr/lib/softhsm/libsofthsm2.so',
  '/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so',
  '/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so',
].find((path) => existsSync(path))
const ENGINE = ['x86_64', 'aarch64']
  .map((machine) => `/usr/lib/${machine}-linux-gnu/engines-3/pkcs11.so`)
  .find((path) => existsSync(path))
const PIN = '123456'
const base = { v: 1, gateway: 'https://gw.example:8443', device: 'a', ca_sha256: 'a'.repeat(64) }

describe('agent.json', () => {
  const read = (pkcs11: object) => parseConfig(JSON.stringify({ ...base, pkcs11 }), '/data')
  const good = { module: '/lib/m.so', uri: 'pkcs11:token=a;object=b', pin_file: '/etc/pin' }

  test('what it says of a token is read and printed', () => {
    const config = read({ ...good, engine: '/opt/pkcs11.so' })
    expect(config.pkcs11).toEqual({
      module: '/lib/m.so',
      uri: 'pkcs11:token=a;object=b',
      pinFile: '/etc/pin',
      engine: '/opt/pkcs11.so',
    })
    expect(parseConfig(printConfig(config), '/data')).toEqual(config)
  })

  test.for([
    ['a PIN in the URI', { uri: 'pkcs11:token=a;pin-value=1234' }, /pkcs11\.uri: the PIN/],
    ['a library in the URI', { uri: 'pkcs11:token=a;module-path=x' }, /pkcs11\.uri/],
    ['another scheme', { uri: 'file:/key' }, /pkcs11\.uri/],
    ['a second attribute that hides in a path', { pin_file: '/a;token=b' }, /pkcs11\.pin_file/],
    ['a relative library', { module: 'm.so' }, /pkcs11\.module/],
    ['what it does not know', { slot: 1 }, /pkcs11\.slot: unknown/],
  ] as const)('%s is refused with its place', ([, more, says]) => {
    expect(() => read({ ...good, ...more })).toThrow(says)
  })
})

describe.skipIf(LIBRARY === undefined || ENGINE === undefined)(
  'a token (needs softhsm2, libengine-pkcs11-openssl)',
  () => {
    let gateway: FakeGateway
    let home: Directory
    let env: NodeJS.ProcessEnv

    beforeAll(async () => {
      gateway = await FakeGateway.start()
      home = new Directory()
      const at = (name: string) => join(home.path, name)
      mkdirSync(at('tokens'))
      writeFileSync(at('softhsm2.conf'), `directories.tokendir = ${at('tokens')}\n`)
      writeFileSync(at('pin'), `${PIN}\n`, { mode: 0o600 })
      env = { ...process.env, SOFTHSM2_CONF: at('softhsm2.conf') }
      softhsm('--init-token', '--free', '--label', DEVICE, '--pin', PIN, '--so-pin', PIN)
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      writeFileSync(at('import.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
      const key = ['--import', at('import.pem'), '--label', 'device', '--id', '01']
      softhsm(...key, '--token', DEVICE, '--pin', PIN)
    })
    afterAll(async () => {
      home[Symbol.dispose]()
      await gateway[Symbol.asyncDispose]()
    })

    function softhsm(...args: string[]): void {
      const made = spawnSync('softhsm2-util', args, { encoding: 'utf8', env })
      expect(made.stderr + made.stdout, `status ${made.status}`).not.toMatch(/ERROR/)
      expect(made.status).toBe(0)
    }

    interface Ended {
      readonly code: number | null
      /** On stdout. */
      readonly out: string
      /** On stderr, where an engine may say a word of its own. */
      readonly err: string
    }

    /** One command of the agent, to its end. */
    async function command(...words: string[]): Promise<Ended> {
      const child = spawn(process.execPath, [bin, '--json', 'agent', ...words], {
        env: { ...env, SALLYPORT_TOKEN: await gateway.bench.token() },
      })
      let [out, err] = ['', '']
      child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
      child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
      const [code] = (await once(child, 'close')) as [number | null]
      return { code, out, err }
    }

    const enroll = (data: string, pinFile = join(home.path, 'pin'), more: string[] = []) =>
      command(
        'enroll',
        `--gateway=${gateway.url}`,
        `--device=${DEVICE}`,
        `--ca-sha256=${gateway.pin}`,
        `--data=${data}`,
        `--pkcs11-module=${LIBRARY ?? ''}`,
        `--pkcs11-pin-file=${pinFile}`,
        `--pkcs11-uri=pkcs11:token=${DEVICE};object=device`,
        ...more,
      )

    /** An agent as its own process until disposed. */
    function run(data: string): AsyncDisposable & { readonly log: () => string } {
      let log = ''
      const child = spawn(process.execPath, [bin, 'agent', 'run', '--data', data], { env })
      child.stderr.on('data', (chunk: Buffer) => (log += chunk.toString()))
      const ended = once(child, 'exit')
      return {
        log: () => log,
        async [Symbol.asyncDispose]() {
          child.kill('SIGTERM')
          await soon('the agent stops', ended)
        },
      }
    }

    const serialOf = ({ serial }: Held) => serial

    test('it enrols, connects, serves and renews with that key, and no key is on the disk', async () => {
      const data = join(home.path, 'data')
      await using target = await startProgram('target.ts')
      const enrolled = await enroll(data, undefined, [
        '--target',
        `plc=tcp:127.0.0.1:${target.port}`,
      ])
      expect(enrolled.code, enrolled.err).toBe(0)
      await using agent = run(data)
      const held = await gateway.nextTunnel()
      const opened = await openStream(held, 'plc')
      proceed(opened)
      opened.stream.write(Buffer.from('through'))
      await holds(() => expect(opened.received.toString()).toBe('through'))
      opened.stream.reset('done')

      gateway.bench.now += 1000
      held.control.write(Buffer.from('{"type":"renew"}\n'))
      const renewed = await gateway.nextTunnel()
      expect(serialOf(renewed), agent.log()).not.toBe(serialOf(held))
      const files = readdirSync(data, { recursive: true, encoding: 'utf8' })
      expect(files.filter((name) => name.endsWith('chain.pem'))).toHaveLength(2)
      expect(files.filter((name) => name.endsWith('key.pem'))).toEqual([])
      expect(agent.log()).not.toContain(PIN)
      expect(readFileSync(join(data, 'agent.json'), 'utf8')).not.toContain(PIN)
      const keys = files
        .filter((name) => name.endsWith('.pem'))
        .map((name) => readFileSync(join(data, name), 'utf8'))
      expect(keys.join('')).not.toContain('PRIVATE KEY')
    })

    test('the token is pulled while it runs: it says so and ends, and the next one finds the key again', async () => {
      const data = join(home.path, 'pulled')
      expect((await enroll(data)).code).toBe(0)
      const child = spawn(process.execPath, [bin, 'agent', 'run', '--data', data], { env })
      let log = ''
      child.stderr.on('data', (chunk: Buffer) => (log += chunk.toString()))
      const ended = once(child, 'close')
      const held = await gateway.nextTunnel()
      renameSync(join(home.path, 'tokens'), join(home.path, 'away'))
      mkdirSync(join(home.path, 'tokens'))
      held.socket.destroy()
      expect(await soon('the agent ends', ended)).toEqual([1, null])
      renameSync(join(home.path, 'tokens'), join(home.path, 'empty'))
      renameSync(join(home.path, 'away'), join(home.path, 'tokens'))
      expect(log).toContain('identity.token')
      expect(log).not.toContain(PIN)
      await using _again = run(data)
      expect(serialOf(await gateway.nextTunnel())).toBe(serialOf(held))
    })

    test.for([
      ['a key that is not there', ['--pkcs11-uri', `pkcs11:token=${DEVICE};object=other`]],
      ['a library that is not there', ['--pkcs11-module', '/nonexistent/libtoken.so']],
      ['a library that is none', ['--pkcs11-module', '/etc/passwd']],
      ['an engine that is none', ['--pkcs11-engine', '/etc/passwd']],
    ] as const)('%s: it says so, and makes no key of its own', async ([, more]) => {
      const data = join(home.path, `broken-${more[0].slice(9)}-${more[1].length}`)
      const { code, err } = await enroll(data, undefined, [...more])
      expect(err).toContain('identity.token')
      expect(code).toBe(1)
      expect(existsSync(join(data, 'identity', 'a', 'key.pem'))).toBe(false)
    })

    test('a PIN that everybody may read, or that is wrong, is refused', async () => {
      const open = join(home.path, 'open-pin')
      writeFileSync(open, PIN)
      chmodSync(open, 0o644)
      expect((await enroll(join(home.path, 'c'), open)).err).toContain('every user of this machine')
      const wrong = join(home.path, 'wrong-pin')
      writeFileSync(wrong, '654321', { mode: 0o600 })
      const { code, err } = await enroll(join(home.path, 'd'), wrong)
      expect(err).toContain('identity.token')
      expect(code).toBe(1)
    })

    test('doctor names a token that is gone', async () => {
      const data = join(home.path, 'data')
      expect((await enroll(data)).code).toBe(0)
      renameSync(join(home.path, 'tokens'), join(home.path, 'away'))
      mkdirSync(join(home.path, 'tokens'))
      const { code, out, err } = await command('doctor', '--data', data)
      renameSync(join(home.path, 'tokens'), join(home.path, 'lost'))
      renameSync(join(home.path, 'away'), join(home.path, 'tokens'))
      expect(code, err).toBe(1)
      expect(JSON.parse(out)).toContainEqual(
        expect.objectContaining({ hop: 'identity', verdict: 'broken', code: 'identity.token' }),
      )
    })
  },
)
