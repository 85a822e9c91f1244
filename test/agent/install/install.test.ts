/** An installation that is run again, in an image: what it takes from the line, and what from the device. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { installAgent } from '#agent'
import type { Setup } from '#agent'
import { DEVICE, FakeGateway } from '../gateway.ts'
import { TENANT } from '../../ca/support.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(async () => await gateway[Symbol.asyncDispose]())

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sallyport-install-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

type Options = Parameters<typeof installAgent>[0]

/** Installs by a line; `more` is what stands behind it. */
async function install(setup: Partial<Setup> = {}, more: Partial<Options> = {}) {
  const file = join(root, 'made')
  writeFileSync(file, '#!/bin/sh\n')
  return await installAgent({
    setup: { gateway: gateway.url, device: DEVICE, rootSha256: gateway.pin, ...setup },
    token: undefined,
    dataDir: undefined,
    level: undefined,
    program: { file, node: undefined },
    root,
    signal: new AbortController().signal,
    log: () => undefined,
    did: () => undefined,
    ...more,
  })
}

const at = (path: string) => join(root, path)
const unit = () => readFileSync(at('etc/systemd/system/sallyport-agent.service'), 'utf8')
const config = (data = 'var/lib/sallyport') =>
  JSON.parse(readFileSync(at(`${data}/agent.json`), 'utf8')) as Record<string, unknown>

describe('run again without a token', () => {
  const other = 'f'.repeat(64)
  test.for([
    ['another root', { rootSha256: other }, `is %pin, not ${other}`],
    ['another tenant', { tenant: 'other.example' }, `is ${TENANT}, not other.example`],
    ['another device', { device: 'press-08' }, `is ${DEVICE}, not press-08`],
  ] as const)('%s is refused, and nothing has changed', async ([, setup, says]) => {
    await install({}, { token: await gateway.bench.token(), level: 0 })
    const [before, service] = [config(), unit()]
    rmSync(at('usr'), { recursive: true })
    await expect(install(setup, { level: 2 })).rejects.toMatchObject({
      code: 'config.other_device',
      message: expect.stringContaining(says.replace('%pin', gateway.pin)) as string,
    })
    expect([config(), unit()]).toEqual([before, service])
    expect(existsSync(at('usr'))).toBe(false)
  })

  test('what the line does not name stays: tenant, level, data, targets, the way out', async () => {
    const way = { proxy: 'http://egress.example:3128', carrier: 'websocket' } as const
    const first = { targets: ['plc=tcp:127.0.0.1:1502'], keyExchange: 'classical' }
    const token = await gateway.bench.token()
    await install(first, { token, level: 0, dataDir: '/srv/plant/device' })
    // No other tenant is issued for here; without a token the file alone says it.
    const path = 'srv/plant/device'
    const edited = { ...config(path), tenant: 'plant.example', ...way, drain_s: 5 }
    writeFileSync(at(`${path}/agent.json`), JSON.stringify(edited))
    const service = unit()
    await install({ targets: ['press=lan:192.0.2.5:502'] })
    expect(unit()).toBe(service)
    expect(unit()).toMatch(/^AmbientCapabilities=$/m)
    expect(config(path)).toMatchObject({
      tenant: 'plant.example',
      key_exchange: 'classical',
      ...way,
      drain_s: 5,
      targets: { plc: { tcp: '127.0.0.1:1502' }, press: { lan: '192.0.2.5:502' } },
    })
    expect(existsSync(at('var/lib/sallyport'))).toBe(false)
  })

  test('what the line names counts', async () => {
    await install({}, { token: await gateway.bench.token(), level: 0 })
    const { capabilities } = await install({}, { level: 2 })
    expect(capabilities).toEqual(['CAP_SYS_PTRACE', 'CAP_DAC_READ_SEARCH'])
  })
})

test('nothing is there and no token: refused before anything is changed', async () => {
  await expect(install()).rejects.toMatchObject({ code: 'token.missing' })
  expect(existsSync(at('usr'))).toBe(false)
  expect(existsSync(at('var'))).toBe(false)
})

test('a data directory that is not absolute is refused before anything is changed', async () => {
  await expect(install({}, { token: 'spt_0', dataDir: 'data' })).rejects.toMatchObject({
    code: 'install.unfit',
  })
  expect(existsSync(at('usr'))).toBe(false)
})
