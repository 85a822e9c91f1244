/** A program on loopback and the tunnel of a device to a gateway, in one process; what a look at that program finds. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { driveTunnel, memoryPair } from '#tunnel'

/** One program, seen whole. */
export const sighting = {
  observed: {
    phase: 'accepted',
    exe: '/usr/bin/plc',
    sha256: null,
    script_sha256: null,
    uid: null,
    unit: null,
    image: null,
    started_at: null,
    pid: 7,
  },
  dialled: undefined,
  sights: [],
  complete: true,
  unreadable: 0,
}

/** Both ends of a tunnel, and the port of a program that tells `dialled` of each connection. All end with the test. */
export async function reached(dialled: () => void = () => {}) {
  const server = createServer(dialled).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const [one, two] = memoryPair()
  const [agent, gateway] = await Promise.all([
    driveTunnel(one, { role: 'agent', side: 'dialler', instance: 'a', epoch: 1 }),
    driveTunnel(two, { role: 'gateway', side: 'acceptor', instance: 'g', epoch: 1 }),
  ])
  onTestFinished(() => {
    agent.close('test.over')
    server.close()
  })
  return { port, agent, gateway }
}
