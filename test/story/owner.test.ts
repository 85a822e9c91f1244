/** The owner of a device has the last word, seen from the gateway: cutting it off, and consent to a session. */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  answerQuestion,
  configFrom,
  enrolAgent,
  layIsland,
  liftIsland,
  runAgent,
  standingQuestions,
} from '#agent'
import type { Setup } from '#agent'
import type { DeviceToken, OpenedSession, Problem } from '#api'
import { saveCredentials } from '../../cli/login/index.ts'
import { throughConnect } from '../support/connect.ts'
import { siteOfOwn } from '../support/zone.ts'
import { grantFor, sha256, startNode, until, type Person, type TestNode } from '../support/node.ts'

/** The executable that answers for the process: the one that runs this test. */
const own = realpathSync('/proc/self/exe')

const site = siteOfOwn()
let folder: string
let second: Person
let node: TestNode
let operator: Person
let vendor: Person
let echo: Server
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-owner-'))
  node = await startNode({ config: site.config })
  second = await node.person('second', { party: 'staff', roles: ['admin', 'engineer'] })
  operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  echo = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
})
afterAll(async () => {
  echo.close()
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
  site[Symbol.dispose]()
})

/** The first event of that code with that word in it, from `from` on. */
const logged = (code: string, word: string, from = 0) =>
  until(`${code} with ${word}`, () =>
    node.events(from).find((event) => event.code === code && event.text.includes(word)),
  )

/** The device can be reached: its tunnel is in the log a moment before that. */
const reachable = (id: string) =>
  until(`${id} is connected`, async () => {
    const { connected } = await node.admin.ask<{ connected: boolean }>('GET', `/devices/${id}`)
    return connected
  })

/** A device that is enrolled and connected, for whose process the vendor has a grant. */
async function device(id: string, more: Partial<Setup> = {}): Promise<Device> {
  const data = join(folder, id)
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id })
  await node.admin.ask('PUT', `/devices/${id}/processes/plc`, {
    kind: 'tcp',
    expect: { exe: [own], sha256: [sha256(readFileSync(own))] },
  })
  const { ca_sha256: rootSha256 } = await vendor.ask<{ ca_sha256: string }>('GET', '/info')
  const targets = [`plc=tcp:127.0.0.1:${(echo.address() as AddressInfo).port}`]
  const setup = { gateway: node.origin, device: id, rootSha256, targets, ...more }
  const config = configFrom(setup, data)
  await enrolAgent(config, { token: token.token, log: () => {} })
  const stopping = new AbortController()
  const done = runAgent(config, { signal: stopping.signal, log: () => {}, random: () => 0 })
  await reachable(id)
  await grantFor(vendor, operator, { device: id, process: 'plc' })
  return {
    data,
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await done
    },
  }
}

interface Device extends AsyncDisposable {
  readonly data: string
}

test('cut off: its sessions end with that reason, nobody is let in, and it is all in the log', async () => {
  await using cut = await device('press-07')
  const ask = { device: 'press-07', process: 'plc' }
  const session = await vendor.ask<OpenedSession>('POST', '/sessions', ask)

  layIsland(cut.data, undefined, '2026-01-02T03:04:05.000Z')
  await logged('tunnel.down', 'owner.island')
  const end = await logged('session.end', session.id)
  expect(end.text).toContain('device.island')
  const refused = await vendor.call<Problem>('POST', '/sessions', ask)
  expect(refused.status).toBeGreaterThanOrEqual(400)
  expect(refused.body).toMatchObject({
    detail: 'the device is cut off by its owner',
    denials: [{ code: 'device.island' }],
  })

  const shown = await node.admin.ask<{ island: boolean }>('GET', '/devices/press-07')
  expect(shown).toMatchObject({ connected: false, island: true })

  const from = node.size()
  liftIsland(cut.data)
  await logged('tunnel.up', 'press-07', from)
  await reachable('press-07')
  const again = await vendor.ask<OpenedSession>('POST', '/sessions', ask)
  expect(again.id).not.toBe(session.id)
  expect(await node.admin.ask('GET', '/devices/press-07')).toMatchObject({ island: false })
})

test('consent: bytes flow once somebody on the device said yes; a no is told to the vendor; both are in the log', async () => {
  await using asking = await device('press-08', { consent: ['plc'] })
  const home = join(folder, 'home')
  await saveCredentials(join(home, 'credentials'), vendor.credentials)
  const answer = async (said: 'allow' | 'deny') => {
    const question = await until('the question', () => standingQuestions(asking.data)[0])
    answerQuestion(asking.data, question.session, { answer: said, by: 'shift lead' })
    return question
  }
  const [back, question] = await Promise.all([
    throughConnect(home, 'press-08/plc', 'let in'),
    answer('allow'),
  ])
  expect(back).toBe('let in')
  expect(question).toMatchObject({ process: 'plc', who: vendor.email })
  await logged('policy.decision', 'shift lead consented on the device')

  const kept = throughConnect(home, 'press-08/plc', 'kept out')
  const [ended] = await Promise.allSettled([kept, answer('deny')])
  expect(ended.status).toBe('rejected')
  await logged('session.deny', 'owner.denied')
})

test('a zone that wants consent: a yes opens one session and its connections, a no is told, and a cut takes the question away', async () => {
  await site.zone({ consent_required: true }, [node.admin, second])
  await using quiet = await device('press-09')
  const ask = { device: 'press-09', process: 'plc' }
  const question = () => until('a question', () => standingQuestions(quiet.data)[0])
  const answer = async (said: 'allow' | 'deny') => {
    const { session } = await question()
    answerQuestion(quiet.data, session, { answer: said, by: 'shift lead' })
  }
  const home = join(folder, 'home-09')
  await saveCredentials(join(home, 'credentials'), vendor.credentials)
  const through = throughConnect(home, 'press-09/plc', 'let in')
  expect(await Promise.all([through, answer('allow')])).toEqual(['let in', undefined])
  await logged('session.start', 'shift lead consented on the device')

  const attempt = () => vendor.call<Problem>('POST', '/sessions', ask)
  const [refused] = await Promise.all([attempt(), answer('deny')])
  expect(refused.body.denials).toMatchObject([{ code: 'owner.denied' }])

  const asking = attempt()
  await question()
  layIsland(quiet.data, undefined, '2026-01-02T03:04:05.000Z')
  expect((await asking).status).toBeGreaterThanOrEqual(400)
  await until('it is gone', () => standingQuestions(quiet.data).length === 0)
  expect((await attempt()).body.denials).toMatchObject([{ code: 'device.island' }])
})
