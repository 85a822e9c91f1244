/** A mirror and a real node: followed, cosigned, counted; and what both say when the log was put back. */
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { configFrom, enrolAgent, runAgent, type AgentConfig } from '#agent'
import type { DeviceToken } from '#api'
import { credentialsDirectory, saveCredentials } from '../../cli/login/index.ts'
import { openMirrorSource } from '../../cli/mirror.ts'
import { readMirrorKeys } from '#audit'
import { HeadKeeper } from '#heads'
import { run, type Ran } from '../cli/run.ts'
import { freePort, startNode, TENANT, until, type TestNode } from '../support/node.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-mirror-'))
const data = join(home, 'gateway')
const mirror = join(home, 'mirror')
const name = 'mirror.soc.example/main'
const log = join(data, 'log', 'gw1', '1')
const origin = `${TENANT}/audit/gw1/1`
let node: TestNode
let port = 0
let device: AgentConfig

const config = `witnesses:\n  - ${join(mirror, 'mirror-keys.txt')}\n`

beforeAll(async () => {
  expect(await run(home, 'audit', 'mirror', 'init', '--dir', mirror, '--name', name)).toMatchObject(
    { code: 0 },
  )
  port = await freePort()
  cpSync(mirror, data, { recursive: true })
  for (const file of ['mirror-name', 'mirror-ed25519.key.pem', 'mirror-ml-dsa-44.key.pem'])
    rmSync(join(data, file))
  node = await startNode({ data, port, config })
  await saveCredentials(credentialsDirectory({ SALLYPORT_HOME: home }), node.admin.credentials)
  const made = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id: 'press-09' })
  const setup = { gateway: node.origin, device: 'press-09', rootSha256: pin() }
  device = configFrom(setup, join(home, 'device'))
  await enrolAgent(device, { token: made.token.token, log: () => undefined })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

const pin = (): string =>
  createHash('sha256').update(new X509Certificate(node.anchor).raw).digest('hex')

function follow(dir = mirror): Promise<Ran> {
  const flags = [
    '--gateway',
    node.origin,
    '--ca-sha256',
    pin(),
    '--key',
    join(data, 'log-keys.txt'),
  ]
  return run(home, '--json', 'audit', 'mirror', 'run', '--once', '--dir', dir, ...flags)
}

function verify(dir: string): Promise<Ran> {
  const keys = ['--key', join(data, 'log-keys.txt'), '--witness', join(mirror, 'mirror-keys.txt')]
  return run(home, '--json', 'audit', 'verify', '--log', dir, ...keys)
}

test('a mirror that the node names copies its log, and the node serves what it cosigned', async () => {
  const followed = await follow()
  expect(followed).toMatchObject({ code: 0 })
  const { size, submitted } = JSON.parse(followed.out) as { size: number; submitted: boolean }
  expect(submitted).toBe(true)
  expect(JSON.parse((await verify(mirror)).out)).toMatchObject({
    outcome: 'proven',
    events: size,
    witnesses: [{ name, size }],
  })
  const admin = await node.admin.ask<{ items: unknown[] }>('GET', '/audit/witnesses')
  expect(admin.items).toMatchObject([{ name, size }])
  const { text } = await node.admin.call('GET', '/audit/log/witnessed')
  expect(text).toContain(`\u2014 ${name} `)
  // What was cosigned lies beside the gateway's own log too, for whoever verifies that.
  expect(JSON.parse((await verify(log)).out)).toMatchObject({ witnesses: [{ name, size }] })
  const health = (await node.health()) as unknown as { witnesses: { name: string }[] }
  expect(health.witnesses).toMatchObject([{ name }])
})

test('reading makes no reading: a mirror that looks again and again is one event', async () => {
  await follow()
  const from = node.size()
  for (let look = 0; look < 3; look++) expect(await follow()).toMatchObject({ code: 0 })
  expect(node.events(from).filter(({ text }) => text.includes('audit:follow'))).toEqual([])
  expect(node.events().filter(({ text }) => text.includes('audit:follow'))).toHaveLength(1)
})

test('a key that the node does not name reads nothing', async () => {
  const stranger = join(home, 'stranger')
  await run(home, 'audit', 'mirror', 'init', '--dir', stranger, '--name', 'other.example/m')
  const refused = await follow(stranger)
  expect(refused.err).toContain('witness.refused')
  expect(refused.code).toBe(4)
  // Nor does a proof for another log, or a person without a right to the log.
  const keys = readMirrorKeys(mirror)
  const site = { gateway: new URL(node.origin), anchor: node.anchor, origin: 'another/log', keys }
  await using source = openMirrorSource(site)
  const from = node.size()
  for (let again = 0; again < 2; again++)
    await expect(source.checkpoint()).rejects.toMatchObject({ code: 'mirror.other' })
  // That a mirror which the node names follows another log is an event, once.
  const told = node.events(from).filter(({ code }) => code === 'finding.witness_conflict')
  expect(told.map(({ text }) => text.includes('another/log') && text.includes(name))).toEqual([
    true,
  ])
  const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  expect(await vendor.call('GET', '/audit/log/checkpoint')).toMatchObject({ status: 403 })
})

test('a path that names no tile, or one that is not there yet, is not found', async () => {
  for (const path of ['tile/0/000.p/256', 'tile/0/x000/001', 'tile/0/999', 'tile/entries/1'])
    expect(await node.admin.call('GET', `/audit/log/${path}`)).toMatchObject({ status: 404 })
})

/** Runs the device until its log says `event`. */
async function agentUntil(own: AgentConfig, event: string): Promise<Record<string, unknown>> {
  const stopping = new AbortController()
  let found: Record<string, unknown> | undefined
  const done = runAgent(own, {
    signal: stopping.signal,
    log: (_level, said, fields = {}) => void (said === event && (found ??= { ...fields })),
    witness: new HeadKeeper(join(own.dataDir, 'witness'), () => Date.now()),
  })
  const fields = await until(`the device says ${event}`, () => found)
  stopping.abort()
  await done
  return fields
}

test('a log that was put back is refused, kept as evidence, and recorded by the node itself', async () => {
  const before = join(home, 'before')
  await node.stop()
  cpSync(log, before, { recursive: true })
  node = await startNode({ data, port, config, bare: true })
  expect(await follow()).toMatchObject({ code: 0 })
  // A person and a device see the log too, and keep what they saw.
  expect(await run(home, 'audit', 'witness', 'check')).toMatchObject({ code: 0 })
  await agentUntil(device, 'log.first')
  const heads = join(home, 'heads')
  expect(await run(home, 'audit', 'witness', 'export', '--out', heads)).toMatchObject({ code: 0 })
  await node.stop()
  rmSync(log, { recursive: true })
  cpSync(before, log, { recursive: true })
  node = await startNode({ data, port, config, bare: true })
  const refused = await follow()
  expect(refused.code).toBe(1)
  expect(refused.err).toMatch(/mirror\.(rollback|fork)/)
  expect(existsSync(join(mirror, 'conflict'))).toBe(true)
  expect(node.events().filter(({ code }) => code === 'finding.witness_conflict')).not.toEqual([])
  const again = await follow()
  expect(again).toMatchObject({ code: 1 })
  expect(again.err).toContain('mirror.conflict')
  const shown = await run(home, 'audit', 'mirror', 'status', '--dir', mirror)
  expect(shown.code).toBe(1)
  expect(shown.out).toContain('-held.note')
  // So say the person's command line, before it does anything, and the device, which serves no session.
  const person = await run(home, 'audit', 'witness', 'check')
  expect(person.code).toBe(1)
  expect(person.err).toMatch(/log\.conflict.*head\./s)
  const said = await agentUntil(device, 'log.conflict')
  expect(said['code']).toMatch(/^head\.(rollback|unproven|fork)$/)
  await until('the node records what the device holds', () =>
    node
      .events()
      .some(({ code, text }) => code === 'finding.witness_conflict' && text.includes('press-09')),
  )
  expect(await run(home, 'audit', 'witness', 'show')).toMatchObject({ code: 1 })
  const deviceHeads = await run(home, 'audit', 'witness', 'export', '--data', device.dataDir)
  writeFileSync(join(home, 'device-heads'), deviceHeads.out)
  // An auditor tells from the heads alone: the mirror passes through them, the node's log does not.
  const compare = (dir: string): Promise<Ran> => {
    const flags = ['--key', join(data, 'log-keys.txt'), '--log', dir]
    return run(home, 'audit', 'witness', 'compare', heads, join(home, 'device-heads'), ...flags)
  }
  expect(await compare(log)).toMatchObject({ code: 1 })
  // The mirror has the events that the node lost, and proves them.
  expect(JSON.parse((await verify(mirror)).out)).toMatchObject({ outcome: 'proven' })
  expect(readFileSync(join(mirror, 'checkpoint'), 'utf8')).toContain(origin)
})
