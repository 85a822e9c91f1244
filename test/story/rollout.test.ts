/**
 * A rollout from end to end: an agent is signed offline, a gateway gives it out, a device that was told whose updates it
 * takes becomes it; one that cannot reconnect is rolled back there, and held here.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DeviceToken, Rollout, RolloutDevice } from '#api'
import { saveCredentials } from '../../cli/login/index.ts'
import { run, type Ran } from '../cli/run.ts'
import { startNode, until, type TestNode } from '../support/node.ts'
import { Service } from '../support/service.ts'

const started = promisify(execFile)
const build = fileURLToPath(new URL('../../deploy/agent/build.ts', import.meta.url))

let folder: string
let node: TestNode
let installed: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-rollout-'))
  const built = started(process.execPath, [build, '--out', folder])
  node = await startNode()
  await saveCredentials(join(folder, 'home/credentials'), node.admin.credentials)
  await built
  installed = join(folder, 'sallyport-agent.cjs')
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

const at = (name: string) => join(folder, name)

async function sallyport(...args: string[]): Promise<Ran> {
  return await run(join(folder, 'home'), '--json', ...args)
}

async function done<T>(...args: string[]): Promise<T> {
  const { code, out, err } = await sallyport(...args)
  expect([code, err]).toEqual([0, ''])
  return JSON.parse(out) as T
}

/** The agent that was built as another version, signed; gives file and manifest. */
async function signed(
  version: string,
  health: string,
  change: (source: string) => string = (source) => source,
): Promise<[agent: string, manifest: string]> {
  const [agent, manifest] = [at(`${version}.cjs`), at(`${version}.update`)]
  const source = readFileSync(installed, 'latin1').replaceAll('0.1.0', version)
  writeFileSync(agent, change(source), 'latin1')
  const key = ['--key', at('update-key.pem')]
  const made = await done<{ version: string }>(
    'rollout',
    'sign',
    agent,
    ...key,
    '--out',
    manifest,
    '--from',
    '0.1.0',
    '--health',
    health,
  )
  expect(made.version).toBe(version)
  return [agent, manifest]
}

const start = async ([agent, manifest]: readonly [string, string]) =>
  await done<Rollout>(
    'rollout',
    'start',
    manifest,
    '--agent',
    agent,
    '--zone',
    'default',
    '--stages',
    '100',
    '--soak',
    '0',
    '--reason',
    'service',
  )

interface Shown {
  readonly rollout: Rollout
  readonly devices: readonly RolloutDevice[]
}

/** What the gateway shows of a rollout once it is so. */
const shown = (id: string, state: string) =>
  until(`${id} is ${state}`, async () => {
    const answer = await done<Shown>('rollout', 'status', id)
    return answer.rollout.state === state && answer
  })

test('an update is signed, rolled out, rolled back where it cannot reconnect, and stays where it can', async () => {
  const { public_key: word = '' } = await done<Record<string, string>>(
    'rollout',
    'keygen',
    '--unsealed',
    '--out',
    at('update-key.pem'),
  )
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
    id: 'press-07',
  })
  const { ca_sha256: pin } = await node.admin.ask<{ ca_sha256: string }>('GET', '/info')
  await started(
    process.execPath,
    [
      installed,
      'enroll',
      '--gateway',
      node.origin,
      '--device',
      'press-07',
      '--ca-sha256',
      pin,
      '--data',
      at('data'),
      '--update-key',
      word,
    ],
    { env: { ...process.env, SALLYPORT_TOKEN: token.token } },
  )
  await using _service = new Service(installed, at('data'))

  const deaf = await signed('0.2.0', '1s', (source) =>
    source.replaceAll('sallyport/1', 'sallyport/9'),
  )
  const bad = await start(deaf)
  const { rollout, devices } = await shown(bad.id, 'paused')
  expect(rollout.reason).toBe('1 failed: update.unhealthy')
  expect(devices).toMatchObject([
    { name: 'press-07', state: 'failed', failure: true, code: 'update.unhealthy' },
  ])
  // While it is open nothing else is rolled out there.
  const good = await signed('0.3.0', '1h')
  const second = await sallyport(
    'rollout',
    'start',
    good[1],
    '--agent',
    good[0],
    '--all-zones',
    '--reason',
    'service',
  )
  expect([second.code, second.err]).toEqual([
    1,
    expect.stringContaining('rollout.standing') as string,
  ])
  await done('rollout', 'abort', bad.id, '--reason', 'it does not reconnect')

  const next = await start(good)
  expect((await shown(next.id, 'done')).devices).toMatchObject([
    {
      name: 'press-07',
      state: 'updated',
      failure: false,
      code: null,
      kind: 'file',
      node: process.versions.node,
    },
  ])
  const device = await node.admin.ask<{ agent_version?: string }>('GET', '/devices/press-07')
  expect(JSON.stringify(device)).toContain('0.3.0')

  const logged = node
    .events()
    .filter(({ code }) => ['rollout.change', 'device.update'].includes(code))
  const said = logged.map(({ message }) => message.replace(/ \(o_.*/, ''))
  expect(said.filter((text) => text.startsWith('rollout'))).toEqual([
    'rollout of 0.2.0 starts',
    'rollout of 0.2.0: paused by itself',
    'rollout of 0.2.0: abort',
    'rollout of 0.3.0 starts',
    'rollout of 0.3.0: everybody has answered',
  ])
  expect(said).toContain('press-07: update to 0.2.0 failed (update.unhealthy)')
  expect(said).toContain('press-07: update to 0.3.0 updated')
})

test('who may only look may not start one, but an operator may hold it', async () => {
  const auditor = await node.person('anna', { party: 'staff', roles: ['auditor'] })
  const operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
  const { items } = await auditor.ask<{ items: Rollout[] }>('GET', '/rollouts')
  expect(items.map(({ state }) => state)).toEqual(['done', 'aborted'])
  const id = items[0]?.id ?? ''
  const abort = (who: typeof auditor) =>
    who.call('POST', `/rollouts/${id}/abort`, { reason: 'because' })
  expect((await abort(auditor)).status).toBe(403)
  expect((await abort(operator)).body).toMatchObject({ code: 'rollout.state' })
  const resumed = await operator.call('POST', `/rollouts/${id}/resume`, { reason: 'because' })
  expect(resumed.status).toBe(403)
})
