/**
 * Updates as a device has them: the agent in one file under something that starts it again, real processes, and a
 * gateway that offers. One of the agents cannot reconnect, one does not start, and some are not taken.
 */
import { execFile, spawn } from 'node:child_process'
import { hash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { pinUpdateKeys } from '#agent'
import { launcherCommand } from '../../agent-tunnel/agent/spawn/launcher.ts'
import { Service } from '../support/service.ts'
import { Directory, enrolled } from './device.ts'
import { holds, type FakeGateway } from './gateway.ts'
import { another as anotherOf, Offers } from './offers.ts'

const build = fileURLToPath(new URL('../../deploy/agent/build.ts', import.meta.url))

let folder: string
let offers: Offers
let gateway: FakeGateway
let installed: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-update-'))
  const built = promisify(execFile)(process.execPath, [build, '--out', folder])
  offers = await Offers.start()
  gateway = offers.gateway
  await built
  installed = join(folder, 'sallyport-agent.cjs')
})
afterAll(async () => {
  await gateway[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

const another = (version: string, change?: (source: string) => string) =>
  anotherOf(installed, version, change)
const published = (version: string, bundle: Buffer, health: number) =>
  offers.published(version, bundle, health)
const reports = (expected: Record<string, unknown>) => offers.reports(expected)
const say = (message: Record<string, unknown>) => offers.say(message)
const offer = (rollout: string, manifest: string) => offers.offer(rollout, manifest)

test('an agent that cannot reconnect is rolled back, one that can stays, and nothing old comes after it', async () => {
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  await using service = new Service(installed, config.dataDir)
  const first = published('0.2.0', another('0.2.0'), 3600)

  // Without a key that the owner pinned: nothing, whatever is signed.
  const own = { kind: 'file', node: process.versions.node }
  await reports({ version: '0.1.0', ...own, keys: [], outcome: null })
  offer('r_none', first)
  await reports({ refused: { rollout: 'r_none', code: 'update.unpinned' } })
  pinUpdateKeys(config.dataDir, [offers.key.word])

  const deaf = another('0.2.0', (source) => source.replaceAll('sallyport/1', 'sallyport/9'))
  offer('r_deaf', published('0.2.0', deaf, 1))
  await reports({
    version: '0.1.0',
    keys: [offers.key.id],
    outcome: { rollout: 'r_deaf', version: '0.2.0', fault: 'update.unhealthy' },
  })
  // To the update, and back.
  expect(service.ends).toEqual([75, 75])
  expect(service.said).toContain('"event":"update.rolled_back"')
  say({ act: 'heard', rollout: 'r_deaf' })

  const broken = another('0.2.0', (source) => source.replace('\n', '\nboom()\n'))
  offer('r_broken', published('0.2.0', broken, 3600))
  await reports({ version: '0.1.0', outcome: { rollout: 'r_broken', fault: 'update.crashed' } })
  expect(service.ends).toEqual([75, 75, 75, 1, 1, 1])

  // A version that it is not, though it was signed so.
  offer('r_liar', published('0.9.0', another('0.2.0'), 3600))
  await reports({ version: '0.1.0', outcome: { rollout: 'r_liar', fault: 'update.version' } })

  const good = another('0.3.0')
  offer('r_good', published('0.3.0', good, 3600))
  await reports({ version: '0.3.0', trial: 'r_good', outcome: null })
  // Killed before the gateway has heard it: it is still on trial.
  const tunnels = gateway.tunnels.length
  service.kill()
  await holds(() => expect(gateway.tunnels.length).toBe(tunnels + 1))
  await reports({ version: '0.3.0', trial: 'r_good' })
  say({ act: 'heard', rollout: 'r_good' })
  await reports({ trial: null, outcome: { rollout: 'r_good', fault: null } })
  say({ act: 'heard', rollout: 'r_good' })

  offer('r_old', first)
  await reports({ refused: { rollout: 'r_old', code: 'update.rollback' } })
  service.kill()
  await holds(() => expect(gateway.tunnels.length).toBe(tunnels + 2))
  await reports({ version: '0.3.0', trial: null, outcome: null, refused: null })

  // What is not any more what was signed does not start, and the log of the device says so.
  const file = join(config.dataDir, 'update', `${hash('sha256', good, 'hex')}.cjs`)
  writeFileSync(file, 'another')
  service.kill()
  await holds(() => expect(gateway.tunnels.length).toBe(tunnels + 3))
  await reports({ version: '0.1.0', trial: null, outcome: null })
  const damaged = '"event":"update.damaged","version":"0.3.0","starts":"0.1.0"'
  await holds(() => expect(service.said).toContain(damaged))
})

test('what the gateway changes or does not have is not taken', async () => {
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  pinUpdateKeys(config.dataDir, [offers.key.word])
  const tunnels = gateway.tunnels.length
  await using service = new Service(installed, config.dataDir)
  // Its own tunnel: the one of the row before says the same.
  await holds(() => expect(gateway.tunnels.length).toBe(tunnels + 1))
  await reports({ version: '0.1.0', keys: [offers.key.id] })
  const bundle = another('0.2.0')
  const manifest = published('0.2.0', bundle, 3600)
  offer('r_forged', manifest.replace('0.1.0', '0.0.1'))
  await reports({ refused: { rollout: 'r_forged', code: 'update.signature' } })
  expect(service.ends).toEqual([])
})

test('an update starts the programs of its device though they do not see its file', async () => {
  const bundle = another('0.2.0')
  const place = join(folder, 'update')
  mkdirSync(place)
  const file = join(place, `${hash('sha256', bundle, 'hex')}.cjs`)
  writeFileSync(file, bundle)
  const { words, file: itself } = launcherCommand(pathToFileURL(file).href)
  expect(itself).toBe(file)
  const [program, own] = [openSync('/bin/echo', 'r'), openSync(file, 'r')]
  // As if the directory were hidden: by its name it is not there.
  rmSync(place, { recursive: true })
  try {
    const [node = '', ...args] = words
    const child = spawn(node, args, {
      env: {},
      stdio: ['pipe', 'pipe', 'inherit', program, 'pipe', own],
    })
    let said = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (said += text))
    const spec = { argv: ['echo', 'it is'], env: [], cwd: '/', user: null, terminal: false }
    const control = child.stdio[4] as Writable
    control.end(JSON.stringify({ ...spec, limits: [] }))
    expect(await once(child, 'close')).toEqual([0, null])
    expect(said).toBe('it is\n')
  } finally {
    for (const fd of [program, own]) closeSync(fd)
  }
})
