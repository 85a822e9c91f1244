/** Two gateways on one Redis, each with a policy of its own: what each says of the other's, and what is told while they differ. */
import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { PolicyActivated, PolicyStatus } from '#api'
import { readLog } from '#audit'
import { BUILTIN_BUNDLE } from '#policy'
import { newSigningKey, signRelease, untrusted } from '#policy-toolchain'
import { saveCredentials } from '../../../cli/login/index.ts'
import { openComparison } from '../../../gateway/policy/comparison.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisGatewayPolicies } from '../../../gateway/store/redis/policies.ts'
import { run } from '../../cli/run.ts'
import { startNode, TENANT, until, type TestNode } from '../../support/node.ts'
import { asking, decision, oneBundle, serving } from '../policy/serving.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-beside-'))
const [key, trusted] = [newSigningKey(), join(folder, 'trust.pub')]
/** Where the second takes bundles from by itself. */
const drop = join(folder, 'drop.tar')
let server: RedisServer
let here: TestNode
let other: TestNode
let data: string

/** The built-in rules under another name, signed. */
function release(revision: string, seq: number): Uint8Array {
  const files = new Map(
    [...untrusted(readFileSync(BUILTIN_BUNDLE))].filter(([name]) => !name.startsWith('vectors/')),
  )
  const manifest = JSON.parse(new TextDecoder().decode(files.get('.manifest'))) as object
  files.set('.manifest', Buffer.from(JSON.stringify({ ...manifest, revision })))
  return signRelease(files, { pem: key.privateKey, seq, iat: 1 }).archive
}

const config = (more: string) =>
  `store: { redis: { host: 127.0.0.1, port: ${server.port} } }\npolicy: { trust: [${JSON.stringify(trusted)}], differ_s: 1${more} }\n`

const sallyport = async (...words: string[]) => {
  const home = join(folder, 'home')
  await saveCredentials(join(home, 'credentials'), here.admin.credentials)
  return await run(home, ...words)
}
const status = async () => await here.admin.ask<PolicyStatus>('GET', '/policy')

/** What the log of this one says of differences, in the order in which it does. */
function findings(node: TestNode): readonly string[] {
  const gateway = node === here ? 'gw1' : 'gw2'
  const entries = readLog(join(node.data, 'log', gateway, '1'), `${TENANT}/audit/${gateway}/1`, 0)
  return [...entries]
    .map(({ body }) => JSON.parse(new TextDecoder().decode(body)) as { message: string })
    .flatMap((event) => (JSON.stringify(event).includes('"finding.policy"') ? [event.message] : []))
}

describe.skipIf(!haveRedis)('two gateways, each with a policy of its own', () => {
  beforeAll(async () => {
    writeFileSync(trusted, key.publicKey)
    server = await RedisServer.start()
    here = await startNode({ config: config('') })
    data = mkdtempSync(join(tmpdir(), 'sallyport-second-'))
    cpSync(join(here.data, 'identity'), join(data, 'identity'), { recursive: true })
    const source = config(`, source: { file: ${JSON.stringify(drop)}, poll_s: 1 }`)
    const place = `gateway: gw2\npublic_port: ${here.port}\n`
    other = await startNode({ bare: true, data, config: `${place}${source}` })
  })
  afterAll(async () => {
    await other[Symbol.asyncDispose]()
    await here[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    for (const path of [folder, data]) rmSync(path, { recursive: true })
  })

  test('hear of each other, and say that they decide alike', async () => {
    for (const node of [here, other])
      await until('it hears of the other', async () => {
        const { policy_gateways: all } = await node.health()
        return all?.gateways === 2 && all.state === 'alike'
      })
    const { gateways, revision } = await status()
    expect(gateways).toMatchObject({ state: 'alike', since: null, told: false, next_step: null })
    expect(gateways?.items).toMatchObject([
      { gateway: 'gw1', here: true, revision, by_itself: false, trial: null },
      { gateway: 'gw2', here: false, revision, by_itself: true, trial: null },
    ])
    const told = await sallyport('policy', 'status')
    expect(told.out).toMatch(
      /^gw1 \(asked\) +\S+ +0 [^]*^gw2 +\S+ +0 [^]*all of them decide by one policy/m,
    )
  })

  test('an activation at one says that the other was not changed; the difference is an event at both, and so is its end', async () => {
    const bundle = join(folder, 'one.tar')
    writeFileSync(bundle, release('site-1', 1))
    const pushed = await sallyport('policy', 'push', bundle, '--activate', '--yes')
    expect(pushed.code).toBe(0)
    expect(pushed.out).toMatch(
      /^gateway gw2 was not changed: it decides by \S+\nTHEY DIFFER[^\n]*\nnext: gw2 takes bundles from its source by itself/m,
    )
    for (const node of [here, other]) {
      await until('the difference is told', async () => findings(node).length === 1)
      expect(findings(node)).toEqual([
        expect.stringMatching(/^gateways decide by different policies: gw1 site-1, gw2 \S+$/),
      ])
      await until('health says so', async () => (await node.health()).policy_gateways?.told)
      expect((await node.health()).policy_gateways).toMatchObject({ state: 'differ', gateways: 2 })
      expect((await node.health()).parts['policy']).toBe(true)
    }
    const shown = await sallyport('policy', 'status')
    expect(shown.out).toMatch(
      /^gw1 \(asked\) +site-1 +1 [^]*^gw2 [^]*^THEY DIFFER, since 2[^]*^next: gw2/m,
    )
    const machine = JSON.parse((await sallyport('--json', 'policy', 'status')).out) as PolicyStatus
    expect(machine.gateways).toMatchObject({ state: 'differ', told: true })
    const { bundle_digest: digest } = machine
    const again = await here.admin.ask<PolicyActivated>('POST', '/policy/activate', { digest })
    expect(again).toMatchObject({ already: true, gateways: { state: 'differ' } })

    cpSync(bundle, `${drop}.part`)
    renameSync(`${drop}.part`, drop)
    for (const node of [here, other]) {
      await until('its end is told', async () => findings(node).length === 2)
      expect(findings(node)[1]).toBe(
        'the gateways decide by one policy again: gw1 site-1, gw2 site-1',
      )
      expect((await node.health()).policy_gateways).toMatchObject({ state: 'alike', told: false })
    }
  })

  test('a trial at one stands beside what the others try', async () => {
    const bundle = join(folder, 'two.tar')
    writeFileSync(bundle, release('site-2', 2))
    await sallyport('policy', 'push', bundle)
    const { candidate } = await status()
    await sallyport('policy', 'try', candidate?.digest ?? '', '--percent', '5')
    const shown = await sallyport('policy', 'status')
    expect(shown.out).toMatch(/^gw1 \(asked\) +site-1 .* site-2, 5 %$/m)
    expect(shown.out).toMatch(/^gw2 +site-1 .* -$/m)
  })

  test('take a canary off trial at both when it ends by itself at one, and one that is tried again goes on', async () => {
    const one = oneBundle()
    const at = async (gateway: string) => {
      const served = await serving(undefined, one)
      const redis = await RedisConnection.open(server.place, 'canary')
      const { service, log } = served
      const comparison = openComparison(
        { gateway },
        new RedisGatewayPolicies(redis),
        { service, source: undefined },
        { log, now: Date.now, report: (error) => void failures.push(error) },
      )
      onTestFinished(async () => {
        await comparison?.[Symbol.asyncDispose]()
        await redis[Symbol.asyncDispose]()
      })
      return { ...served, tried: () => service.trial()?.status }
    }
    const failures: unknown[] = []
    const [first, second] = [await at('gw1'), await at('gw2')]
    for (const { trying } of [first, second]) await trying('canary')
    const { trial } = first.decisions
    for (let who = 0; who < 40; who++)
      trial?.answer('session.open', asking(`p${who}`), decision(true, 'grant.live'))
    await until('it is off trial at the other', () => second.tried()?.state === 'ended')
    const reason = first.tried()?.reason ?? ''
    expect(reason).toContain('were newly denied')
    expect(second.tried()?.reason).toBe(`gateway gw1: ${reason}`)
    await until('both have told it', () =>
      [first, second].every(({ rolled }) => rolled().length > 0),
    )
    expect([...first.rolled(), ...second.rolled()]).toHaveLength(2)
    // The verdict stands on, and is not on what is begun after it.
    const looks = vi.spyOn(second.service, 'trial')
    await second.trying('canary')
    // Each look asks some three times what is tried here.
    await until('it has looked again', () => looks.mock.calls.length > 6)
    expect([second.tried()?.state, failures]).toEqual(['running', []])
  })
})
