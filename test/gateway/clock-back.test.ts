/** The clock of a gateway's machine is put back behind what the gateway has issued. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { DeviceToken } from '#api'
import { createCsr, createRenewalCsr, enrollRequest, reenrollRequest } from '#est'
import {
  newKey,
  presenting,
  send,
  startNode,
  TENANT,
  type DeviceIdentity,
  type TestNode,
} from '../support/node.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 })

const DAY = 86_400_000
const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
/** Debian's faketime: the clock that OpenSSL reads as well. */
const [faketime] = globSync('/usr/lib/*/faketime/libfaketime.so.1')
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

test('a day back while it runs: its own time goes on, and what it issues bears it', async () => {
  const began = Date.now()
  setClock(-DAY)
  for (const reply of [await enrol(), await renew()]) {
    expect(reply.status, reply.text).toBe(200)
  }
  const issued = node.rows('SELECT max(not_before) AS latest FROM ca_certificate')
  expect(issued[0]?.['latest']).toBeGreaterThan(began - DAY / 2)
})

test.skipIf(faketime === undefined)(
  'it does not start behind its own CA, and says which clock to set (needs faketime)',
  async () => {
    await node.stop()
    const args = ['gateway', '--data', node.data, '--listen', '127.0.0.1:0']
    const gateway = spawn(process.execPath, [bin, ...args], {
      env: {
        ...process.env,
        LD_PRELOAD: faketime,
        FAKETIME: '-1d',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      },
    })
    const [said, [code]] = await Promise.all([text(gateway.stderr), once(gateway, 'close')])
    expect(said).toMatch(
      /the issuing CA begins at 2.*, and this gateway believes it is 2.*: set its clock/,
    )
    expect(code).toBe(1)
  },
)
