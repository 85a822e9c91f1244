/** Dockerfile and docker-compose.yml, as far as they can be proven without a container engine. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { readConfig } from '../../gateway/config.ts'
import { freePort } from '../support/port.ts'
import { code, invocations, misused } from './pages.ts'

const root = join(import.meta.dirname, '../..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')

interface Service {
  readonly build?: { readonly context: string; readonly target: string }
  readonly image?: string
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
  readonly volumes?: readonly string[]
  readonly healthcheck?: { readonly test: readonly string[] }
  readonly restart?: string
}
const compose = parse(read('docker-compose.yml')) as {
  services: Record<string, Service>
  volumes: Record<string, null>
}
const services = Object.entries(compose.services)
const dockerfile = read('Dockerfile').replaceAll(/\\\n\s*/g, '')
const stages = [...dockerfile.matchAll(/^FROM (\S+) AS (\S+)$/gm)].map((match) => match[2] ?? '')

/** The program that can read a compose file on this machine: a plugin of docker, or the old name. */
function composeProgram(): [string, ...string[]] | undefined {
  const ways: [string, ...string[]][] = [
    ['docker', 'compose'],
    ['docker-compose'],
    ['/usr/libexec/docker/cli-plugins/docker-compose'],
  ]
  return ways.find(([program, ...args]) => spawnSync(program, [...args, 'version']).status === 0)
}

describe('docker-compose.yml', () => {
  test('has the gateway, Redis, the SIEM and two devices', () => {
    expect(Object.keys(compose.services)).toEqual(
      expect.arrayContaining(['gateway', 'redis', 'siem', 'press-07', 'press-08']),
    )
  })

  test('every service is built from a stage that exists, or names a version', () => {
    for (const [name, { build, image }] of services)
      if (build === undefined) expect(image, name).toMatch(/^[a-z]+:\d[\w.-]*$/)
      else expect(stages, name).toContain(build.target)
  })

  test('whoever waits, waits for something that can happen', () => {
    for (const [name, { depends_on: needs = {} }] of services)
      for (const [other, { condition }] of Object.entries(needs)) {
        const service = compose.services[other]
        expect(service, `${name} needs ${other}`).toBeDefined()
        if (condition === 'service_healthy') expect(service?.healthcheck, other).toBeDefined()
        if (condition === 'service_completed_successfully')
          expect(service?.restart, other).toBeUndefined()
      }
  })

  test('every mount is a volume of the file or a file of the project', () => {
    const sources = services.flatMap(([, { volumes = [] }]) =>
      volumes.map((mount) => mount.split(':')[0] ?? ''),
    )
    for (const source of sources)
      if (source.startsWith('.')) expect(existsSync(join(root, source)), source).toBe(true)
      else expect(Object.keys(compose.volumes)).toContain(source)
    expect(Object.keys(compose.volumes).filter((name) => !sources.includes(name))).toEqual([])
  })

  const program = composeProgram()
  test.skipIf(program === undefined)('docker compose config accepts it', () => {
    const [command = '', ...args] = program ?? []
    const { status, stderr } = spawnSync(command, [...args, 'config', '--quiet'], {
      cwd: root,
      encoding: 'utf8',
    })
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' })
  })
})

describe('Dockerfile', () => {
  test('copies what exists, and .dockerignore lets it through', () => {
    const allowed = read('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1))
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap((match) =>
      (match[1] ?? '').split(' '),
    )
    expect(copied).toContain('gateway')
    for (const path of copied) {
      expect(existsSync(join(root, path)), path).toBe(true)
      expect(
        allowed.some((name) => path === name || path.startsWith(`${name}/`)),
        path,
      ).toBe(true)
    }
  })

  test('every door is in the image', () => {
    const { imports } = JSON.parse(read('package.json')) as { imports: Record<string, string> }
    for (const door of Object.values(imports))
      expect(dockerfile).toContain(`COPY ${door.split('/')[1]} `)
  })

  test('runs as nobody special', () => {
    expect(/^FROM \S+ AS sallyport$[^]*?^(?:FROM)/m.exec(dockerfile)?.[0]).toMatch(/^USER node$/m)
  })
})

test('the commands that the files name exist', async () => {
  const { buildProgram } = await import('../../cli/main.ts')
  const program = buildProgram()
  const comments = read('docker-compose.yml').replaceAll(/^#/gm, '')
  const lines = [comments, read('deploy/compose/device.sh').replaceAll(/\\\n\s*/g, '')].flatMap(
    (text) => text.split('\n'),
  )
  const named = lines.flatMap((line) => [...invocations(line), ...code(line).flatMap(invocations)])
  expect(named.length).toBeGreaterThan(4)
  expect(
    named
      .map((words) => [words.join(' '), misused(program, words)])
      .filter(([, why]) => why !== undefined),
  ).toEqual([])
})

test('the gateway accepts its file', () => {
  const config = readConfig({ file: join(root, 'deploy/compose/gateway.yaml'), environment: {} })
  expect(config).toMatchObject({ data: '/data', listen: '0.0.0.0:8443', names: ['gateway'] })
  expect(config.syslog[0]).toMatchObject({ host: 'siem', ca_file: '/keys/root.pem' })
})

const rsyslog = ['/usr/sbin/rsyslogd', '/sbin/rsyslogd'].find((path) => existsSync(path))
// Debian packs the TLS driver apart from the daemon: rsyslog-openssl.
const driver = globSync('/usr/lib/{*/,}rsyslog/lmnsd_ossl.so').length > 0
const openssl = spawnSync('openssl', ['version']).status === 0

describe('the SIEM of the compose file', () => {
  test.skipIf(rsyslog === undefined || !driver || !openssl)(
    'rsyslogd with its keys takes an event over TLS, from the gateway only',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'sallyport-siem-'))
      const log = join(folder, 'log/sallyport.log')
      const keys = join(folder, 'keys')
      await mkdir(keys)
      await mkdir(join(folder, 'log'))
      for (const _ of ['once', 'again']) {
        const made = spawnSync('sh', [join(root, 'deploy/compose/siem-keys.sh'), keys], {
          encoding: 'utf8',
        })
        expect(made).toMatchObject({ status: 0, stderr: '' })
      }
      const port = await freePort()
      const config = read('deploy/compose/rsyslog.conf')
        .replaceAll('/keys/', `${keys}/`)
        .replaceAll('/var/log/plant/', `${folder}/log/`)
        .replace(
          'input(type="imtcp" port="6514")',
          `input(type="imtcp" port="${port}" address="127.0.0.1")`,
        )
      await writeFile(join(folder, 'rsyslog.conf'), config)
      const args = ['-n', '-f', join(folder, 'rsyslog.conf'), '-i', join(folder, 'pid')]
      const daemon = spawn(rsyslog ?? '', args, { stdio: 'ignore' })
      try {
        const file = (name: string) => readFileSync(join(keys, name))
        const client = { cert: file('gateway.pem'), key: file('gateway.key') }
        const send = async (credentials: object, text: string): Promise<void> => {
          const options = {
            host: '127.0.0.1',
            port,
            servername: 'siem',
            ca: file('root.pem'),
            ...credentials,
          }
          const socket = connect(options)
          socket.on('error', () => undefined)
          await once(socket, 'secureConnect')
          socket.end(`${Buffer.byteLength(text)} ${text}`)
          await once(socket, 'close')
        }
        const event = '<134>1 2026-01-01T00:00:00Z gw1 sallyport - session.start - an event'
        await until(async () => send(client, event).then(() => true))
        await send({}, event.replace('an event', 'a stranger')).catch(() => undefined)
        // The daemon may still be saying goodbye to the stranger, and by a descriptor that the next one gets.
        await until(async () =>
          send(client, event.replace('an event', 'the last')).then(() => true),
        )
        const said = await until(async () => {
          const text = await readFile(log, 'utf8')
          return text.includes('the last') ? text : undefined
        })
        expect(said).toContain(event)
        expect(said).not.toContain('a stranger')
      } finally {
        daemon.kill('SIGTERM')
        if (daemon.exitCode === null) await once(daemon, 'exit')
        await rm(folder, { recursive: true })
      }
    },
  )
})

/** What `ask` gives, once it gives something; its refusals until then are expected. */
async function until<T>(ask: () => Promise<T | undefined>): Promise<T> {
  for (let left = 600; ; left--) {
    const value = await ask().catch((error: unknown) => {
      if (left === 0) throw error
    })
    if (value !== undefined) return value
    await sleep(100)
  }
}
