/** A tunnel over a Unix socket, worker to worker of one node. */
import { once } from 'node:events'
import net from 'node:net'
import { driveTunnel } from './drive.ts'
import type { Tunnel, TunnelOptions } from './tunnel.ts'

/** Dials a Unix socket by its path. Rejects with the system's error, or as `driveTunnel`. */
export async function dialUnix(
  path: string,
  options: Omit<TunnelOptions, 'side'>,
): Promise<Tunnel> {
  const socket = net.connect({ path })
  await once(socket, 'connect')
  return driveTunnel(socket, { ...options, side: 'dialler' })
}

/** Listens on a path; `onTunnel` gets every tunnel after its HELLO, `onFailure` every other peer. */
export async function listenUnix(
  path: string,
  options: Omit<TunnelOptions, 'side'>,
  onTunnel: (tunnel: Tunnel) => void,
  onFailure: (error: unknown) => void = () => undefined,
): Promise<net.Server> {
  const server = net.createServer((socket) => {
    driveTunnel(socket, { ...options, side: 'acceptor' }).then(onTunnel, onFailure)
  })
  server.listen(path)
  await once(server, 'listening')
  return server
}
