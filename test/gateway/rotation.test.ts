/** A node whose log was rotated: whoever kept a head of the old epoch follows it, and what the node knew it still knows. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
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

beforeAll(async () => {
  const port = await freePort()
  mkdirSync(data)
  node = await startNode({ data, port })
  ;({ admin } = node)
  await saveCredentials(credentialsDirectory({ SALLYPORT_HOME: home }), admin.credentials)
  expect((await check()).out).toBe('the log seen for the first time\n')
  await node.stop()
  const config = join(data, 'node.yaml')
  const ran = await run(home, 'audit', 'rotate', '--data', data, '--config', config)
  expect(ran.code, ran.err).toBe(0)
  node = await startNode({ data, port, bare: true })
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

test('the whole log is proven by the keys of either epoch, beside the gateway that writes it', async () => {
  for (const name of ['log-keys.txt', 'log-keys-1.txt']) {
    const verifierKeys = readFileSync(join(data, name), 'utf8').trim().split('\n')
    expect(await verifyEpochs({ directory: log, verifierKeys }), name).toMatchObject({
      outcome: 'proven',
      epochs: [{ epoch: 1 }, { epoch: 2 }],
    })
  }
})
