/** A node whose log was rotated: whoever kept a head of the old epoch follows it, and what the node knew it still knows. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readLog, verifyEpochs, joinOf } from '#audit'
import { credentialsDirectory, saveCredentials } from '../../cli/login/index.ts'
import { run, type Ran } from '../cli/run.ts'
import { freePort, startNode, TENANT, type Person, type TestNode } from '../support/node.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-rotation-'))
const data = join(home, 'gateway')
const log = join(data, 'log', 'gw1')
let node: TestNode
let admin: Person

const check = (): Promise<Ran> => run(home, 'audit', 'witness', 'check')
const origin = (epoch: number): string => `${TENANT}/audit/gw1/${epoch}`

/** One folder a mirror, called as its epoch: then all of them are verified as the log itself is. */
const mirrorOf = (epoch: number): string => join(home, 'mirror', String(epoch))
const follow = async (epoch: number, keys: string): Promise<Ran> => {
  const pin = readFileSync(join(data, 'ca-root.sha256'), 'utf8').trim()
  const at = ['--dir', mirrorOf(epoch), '--gateway', node.origin, '--ca-sha256', pin]
  const flags = ['--key', join(data, keys), '--every', '1s']
  return await run(home, '--json', 'audit', 'mirror', 'run', ...at, ...flags, ...once)
}
const once: string[] = ['--once']

beforeAll(async () => {
  const port = await freePort()
  mkdirSync(data)
  for (const epoch of [1, 2]) {
    const flags = ['--dir', mirrorOf(epoch), '--name', `mirror.soc.example/${epoch}`]
    expect((await run(home, 'audit', 'mirror', 'init', ...flags)).code).toBe(0)
  }
  const keys = [1, 2].map((epoch) => JSON.stringify(join(mirrorOf(epoch), 'mirror-keys.txt')))
  const witnesses = `witnesses: [${keys.join(', ')}]\n`
  node = await startNode({ data, port, config: witnesses })
  expect(await follow(1, 'log-keys.txt')).toMatchObject({ code: 0 })
  ;({ admin } = node)
  await saveCredentials(credentialsDirectory({ SALLYPORT_HOME: home }), admin.credentials)
  expect((await check()).out).toBe('the log seen for the first time\n')
  await node.stop()
  const config = join(data, 'node.yaml')
  const ran = await run(home, 'audit', 'rotate', '--data', data, '--config', config)
  expect(ran.code, ran.err).toBe(0)
  node = await startNode({ data, port, config: witnesses, bare: true })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

test('a person who kept a head of the old epoch is shown that the new one goes on from it, once', async () => {
  const first = await check()
  expect(first.code, first.err).toBe(0)
  expect(first.out).toMatch(/^the log was rotated: it ended as it was kept here/)
  expect((await check()).out).toMatch(/^the log (as it was|goes on from before)\n$/)
  const shown = await run(home, '--json', 'audit', 'witness', 'show')
  expect(shown.out).toContain(origin(2))
  expect(shown.out).not.toContain(origin(1))
})

test('a head of the old epoch held against the log is no finding, one that is not in it is', async () => {
  const events = (): string[] =>
    [...readLog(join(log, '2'), origin(2))].map(({ body }) => joinOf(body)?.code ?? '')
  const note = readFileSync(join(log, '1', 'checkpoint'), 'utf8')
  expect(await admin.ask('POST', '/audit/head', { note })).toEqual({ recorded: false })
  expect(events()).not.toContain('finding.witness_conflict')
  const other = note.replace(origin(1), origin(7))
  expect(await admin.ask('POST', '/audit/head', { note: other })).toEqual({ recorded: true })
  expect(events()).toContain('finding.witness_conflict')
})

test('a mirror of the old epoch reads that to its end and ends, one of the new goes on, and both are one log', async () => {
  // The gateway was stopped and rotated since it looked.
  once.length = 0
  const ended = await follow(1, 'log-keys-1.txt')
  expect(ended).toMatchObject({ code: 1 })
  expect(ended.err).toContain('mirror.ended')
  expect(ended.err).toContain(origin(2))
  expect(existsSync(join(mirrorOf(1), 'conflict'))).toBe(false)
  once.push('--once')
  expect((await follow(1, 'log-keys-1.txt')).err).toContain('mirror.ended')
  expect(await follow(2, 'log-keys.txt')).toMatchObject({ code: 0 })
  const witnesses = [1, 2].flatMap((epoch) => [
    '--witness',
    join(mirrorOf(epoch), 'mirror-keys.txt'),
  ])
  const keys = ['--key', join(data, 'log-keys.txt'), ...witnesses, '--quorum', '1']
  for (const directory of [join(home, 'mirror'), log]) {
    const verified = await run(home, '--json', 'audit', 'verify', '--log', directory, ...keys)
    expect(verified.code, verified.out).toBe(0)
    expect(JSON.parse(verified.out)).toMatchObject({
      outcome: 'proven',
      epochs: [
        { verdict: { witnesses: [{ name: 'mirror.soc.example/1' }] } },
        { verdict: { witnesses: [{ name: 'mirror.soc.example/2' }] } },
      ],
    })
  }
})

test('the whole log is proven by the keys of either epoch, beside the gateway that writes it', async () => {
  for (const name of ['log-keys.txt', 'log-keys-1.txt']) {
    const verifierKeys = readFileSync(join(data, name), 'utf8').trim().split('\n')
    expect(await verifyEpochs({ directory: log, verifierKeys }), name).toMatchObject({
      outcome: 'proven',
      epochs: [{ epoch: 1 }, { epoch: 2 }],
    })
  }
})
