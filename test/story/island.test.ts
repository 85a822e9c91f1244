/** The owner of a device cuts it off while a vendor is inside, seen from the gateway. */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { configFrom, enrolAgent, layIsland, liftIsland, runAgent } from '#agent'
import type { DeviceToken, OpenedSession, Problem } from '#api'
import { grantFor, openSession, sha256, startNode, until, type TestNode } from '../support/node.ts'

const DEVICE = 'press-07'
/** The executable that answers for the process: the one that runs this test. */
const own = realpathSync('/proc/self/exe')

let folder: string
let node: TestNode
let echo: Server
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-island-'))
  node = await startNode()
  echo = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
})
afterAll(async () => {
  echo.close()
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

test('its sessions end with that reason, nobody is let in, and it is all in the log', async () => {
  const operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
  const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id: DEVICE })
  await node.admin.ask('PUT', `/devices/${DEVICE}/processes/plc`, {
    kind: 'tcp',
    expect: { exe: [own], sha256: [sha256(readFileSync(own))] },
  })
  const { ca_sha256: rootSha256 } = await vendor.ask<{ ca_sha256: string }>('GET', '/info')
  const { port } = echo.address() as AddressInfo
  const targets = [`plc=tcp:127.0.0.1:${port}`]
  const config = configFrom({ gateway: node.origin, device: DEVICE, rootSha256, targets }, folder)
  await enrolAgent(config, { token: token.token, log: () => {} })
  const stopping = new AbortController()
  const done = runAgent(config, { signal: stopping.signal, log: () => {}, random: () => 0 })
  try {
    const logged = (code: string, word: string, from = 0) =>
      until(`${code} with ${word}`, () =>
        node.events(from).find((event) => event.code === code && event.text.includes(word)),
      )
    await logged('tunnel.up', DEVICE)
    await grantFor(vendor, operator, { device: DEVICE, process: 'plc' })
    const session = await openSession(vendor, DEVICE, 'plc')

    layIsland(folder, undefined, '2026-01-02T03:04:05.000Z')
    await logged('tunnel.down', 'owner.island')
    const end = await logged('session.end', session.id)
    expect(end.text).toContain('device.island')
    const refused = await vendor.call<Problem>('POST', '/sessions', {
      device: DEVICE,
      process: 'plc',
    })
    expect(refused.status).toBeGreaterThanOrEqual(400)
    expect(refused.body).toMatchObject({
      detail: 'the device is cut off by its owner',
      denials: [{ code: 'device.island' }],
    })

    const from = node.size()
    liftIsland(folder)
    await logged('tunnel.up', DEVICE, from)
    const again = await vendor.ask<OpenedSession>('POST', '/sessions', {
      device: DEVICE,
      process: 'plc',
    })
    expect(again.id).not.toBe(session.id)
  } finally {
    stopping.abort()
    await done
  }
})
