/** A running node whose CA an operator changes: taken over without a restart, logged first, devices follow. */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { parseCertsOnly } from '#est'
import { readConfig } from '../../gateway/config.ts'
import { rotate } from '../../gateway/keys/acts.ts'
import { exportRoot } from '../../gateway/keys/export.ts'
import { openRoom, type CaRoom } from '../../gateway/keys/room.ts'
import { readState } from '../../gateway/keys/state.ts'
import { describeCa } from '../../gateway/keys/status.ts'
import { startNode, until, type DeviceIdentity, type TestNode } from '../support/node.ts'

let node: TestNode
let room: CaRoom
let away: DeviceIdentity

beforeAll(async () => {
  node = await startNode()
  const config = readConfig({ overrides: { data: node.data }, environment: {} })
  room = openRoom(config, 'operator|test')
  away = await node.device('press-09')
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
})

async function cacerts(): Promise<X509Certificate[]> {
  const { get } = await import('node:https')
  const text = await new Promise<string>((resolve, reject) => {
    get(`${node.origin}/.well-known/est/cacerts`, { ca: node.anchor, agent: false }, (response) => {
      let body = ''
      response.setEncoding('latin1').on('data', (chunk: string) => (body += chunk))
      response.on('end', () => resolve(body))
    }).on('error', reject)
  })
  return parseCertsOnly(text).map((der) => new X509Certificate(der))
}
const issuerOf = ({ chain }: DeviceIdentity) => new X509Certificate(chain[0] ?? '').issuer
/** The issuer of what the port presents, to a client that pinned the first root. */
async function portIssuer(): Promise<string> {
  return await new Promise((resolve, reject) => {
    const socket = connect(
      { host: '127.0.0.1', port: node.port, servername: 'localhost', ca: node.anchor },
      () => {
        const { issuer } = new X509Certificate(socket.getPeerCertificate(true).raw)
        socket.destroy()
        resolve(issuer)
      },
    ).on('error', reject)
  })
}

test('rotated while it runs: both chains in cacerts, then devices of either CA renew', async () => {
  const device = await node.device('press-07')
  const before = issuerOf(device)
  const from = node.size()
  await rotate(room, {})
  await until('the next CA is in cacerts', async () => (await cacerts()).length === 3)
  // It is served and accepted; it signs nothing.
  expect(issuerOf(await node.renew(device))).toBe(before)
  await rotate(room, { now: true })
  const renewed = await until('the new CA signs', async () => {
    const next = await node.renew(away.id === 'press-09' ? device : away)
    return issuerOf(next) !== before && next
  })
  expect((await cacerts()).map((each) => each.subject)).toContain(issuerOf(renewed))
  // The one that was away shows a certificate of the retired CA, and comes back with one of the new.
  expect(issuerOf(away)).toBe(before)
  expect(issuerOf(await node.renew(away))).toBe(issuerOf(renewed))
  await until(
    'the port presents a certificate of the new CA',
    async () => (await portIssuer()) === issuerOf(renewed),
  )
  const operations = node.events(from).filter((each) => each.text.includes('"ca:'))
  expect(operations.map((each) => each.message)).toEqual([
    expect.stringMatching(/^new issuing CA, signing from/),
    'the waiting issuing CA signs at once',
    expect.stringMatching(/signs from now on$/),
  ])
  expect(readState(join(node.data, 'ca'))?.acts).toEqual([])
})

test('a new root while it runs: who pinned the old one still reaches the port', async () => {
  const old = issuerOf(await node.renew(away))
  await rotate(room, { root: true, now: true })
  await until('the port follows', async () => (await portIssuer()) !== old)
  const subjects = (await cacerts()).map((each) => `${each.subject} by ${each.issuer}`)
  // Two roots, three issuing CAs, OldWithNew and NewWithOld.
  expect(new Set(subjects).size).toBe(7)
  expect(readFileSync(join(node.data, 'ca-root.pem'), 'utf8')).not.toBe(node.anchor)
})

test('the root key taken away while it runs: in the log, and nothing else changes', async () => {
  const from = node.size()
  const copy = { text: 'correct horse battery', file: 'the test', beside: false }
  const medium = mkdtempSync(join(tmpdir(), 'sallyport-medium-'))
  onTestFinished(() => rmSync(medium, { recursive: true }))
  await exportRoot(room, join(medium, 'copy.pem'), copy)
  const [event] = await until('the log has it', () => {
    const found = node.events(from).filter((each) => each.text.includes('ca:export-root'))
    return found.length > 0 && found
  })
  expect(event?.text).toContain('operator|test')
  const state = readState(room.directory)
  expect(state && describeCa(room, state).roots.map(({ key }) => key.split(' ')[0])).toContain(
    'exported',
  )
  expect((await node.renew(away)).chain).toHaveLength(1)
})
