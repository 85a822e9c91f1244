/** The clock of a gateway is put back behind what it has issued: what is refused, what people are told, and that it ends with the fault. */
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { DeviceToken } from '#api'
import { createCsr, createRenewalCsr, enrollRequest, reenrollRequest } from '#est'
import { runGateway } from '#gateway'
import {
  newKey,
  presenting,
  send,
  startNode,
  TENANT,
  type DeviceIdentity,
  type TestNode,
} from '../support/node.ts'
import { dialDevice } from '../support/tunnels.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 })

const DAY = 86_400_000
let node: TestNode
let device: DeviceIdentity
let token: string
beforeAll(async () => {
  node = await startNode()
  device = await node.device('press-07')
  const added = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id: 'press-08' })
  token = added.token.token
})
afterEach(() => vi.useRealTimers())
afterAll(() => node[Symbol.asyncDispose]())

/** Dates alone: what waits, waits by another clock. */
function setClock(by: number): void {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + by })
}

const renew = async () => {
  const csr = createRenewalCsr(newKey(), device.chain[0] ?? new Uint8Array())
  return await send(node, { ...reenrollRequest({ csr }), ...presenting(device) })
}
const enrol = async () => {
  const csr = createCsr(newKey(), { deviceId: 'press-08', tenant: TENANT })
  return await send(node, enrollRequest({ csr, token }))
}
const rows = () => node.rows('SELECT count(*) AS n FROM ca_certificate')[0]?.['n']

test('a day back: nothing is issued, both dates are said, and all goes on once it is right', async () => {
  const before = rows()
  const today = new Date().toISOString().slice(0, 10)
  setClock(-DAY)
  const then = new Date().toISOString().slice(0, 10)
  const early = `begins at ${today}T[^ ]*, and this gateway believes it is ${then}T`
  const renewed = await renew()
  expect([renewed.status, renewed.text]).toEqual([
    403,
    expect.stringMatching(
      new RegExp(
        `^peer\\.early: the client certificate ${early}[^ ]*: one of the two clocks is wrong; correct the clocks`,
      ),
    ),
  ])
  const tunnel = await dialDevice(node, device)
  expect(await tunnel.closed).toMatchObject({
    code: 'peer.early',
    message: expect.stringMatching(new RegExp(early)) as string,
  })
  const enrolled = await enrol()
  expect([enrolled.status, enrolled.text]).toEqual([
    503,
    expect.stringMatching(
      new RegExp(`^issuer\\.expired: the issuing CA ${early}[^ ]*: set its clock;`),
    ),
  ])
  expect(rows()).toBe(before)
  vi.useRealTimers()
  expect((await enrol()).status).toBe(200)
  expect((await renew()).status).toBe(200)
})

test('it does not start behind its own CA, and says which clock to set', async () => {
  await node.stop()
  setClock(-DAY)
  const stop = new AbortController()
  const started = runGateway(
    { dataDirectory: node.data, listen: '127.0.0.1:0', operations: '127.0.0.1:0' },
    { signal: stop.signal, ready: () => stop.abort() },
  )
  await expect(started).rejects.toMatchObject({
    code: 'issuer.expired',
    message: expect.stringMatching(
      /^the issuing CA begins at 2.*, and this gateway believes it is 2.*: set its clock$/,
    ) as string,
  })
})
