/**
 * One end of a tunnel as a process: `listen HOST PORT EACH` or `dial HOST PORT EACH`, plain TCP, keepalives every
 * EACH to one and a half EACH ms. Prints a line of JSON for what happens; on stdin takes `write N`, `read`, `stop`.
 */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { driveTunnel } from '#tunnel'
import type { Tunnel, TunnelStream } from '#tunnel'

const [how = 'dial', host = '127.0.0.1', port = '0', each = '200'] = process.argv.slice(2)
const tell = (what: object) => console.log(JSON.stringify(what))
const least = Number(each)
const limits = { keepaliveMs: [least, least * 1.5], keepalivePatienceMs: least * 1.5 } as const

function take(stream: TunnelStream, consumes: boolean): void {
  let got = 0
  let held = 0
  stream.onClose = ({ code }) => tell({ closed: code, id: stream.id })
  stream.onData = (chunk) => {
    got += chunk.length
    if (consumes || reading) stream.consumed(chunk.length)
    else held += chunk.length
    tell({ got, id: stream.id })
  }
  onRead.push(() => {
    stream.consumed(held)
    held = 0
  })
}

let reading = false
const onRead: (() => void)[] = []

async function drive(socket: Socket): Promise<Tunnel> {
  const side = how === 'listen' ? 'acceptor' : 'dialler'
  const role = how === 'listen' ? 'gateway' : 'agent'
  const tunnel = await driveTunnel(socket, { role, side, instance: how, epoch: 1, limits })
  tell({ event: 'up' })
  // The first stream is read by a slow reader, the others at once.
  let first = true
  tunnel.onOpen = (offer) => {
    take(offer.accept(Buffer.alloc(0)), !first)
    first = false
  }
  void tunnel.closed.then(({ code, fault }) => {
    tell({ event: 'down', code, fault })
    if (how === 'dial') process.exit(0)
  })
  return tunnel
}

async function write(stream: TunnelStream, bytes: number): Promise<void> {
  const chunk = Buffer.alloc(65_536)
  for (let sent = 0; sent < bytes; sent += chunk.length)
    if (!stream.write(chunk)) {
      const drained = new Promise<boolean>((resolve) => (stream.onDrain = () => resolve(true)))
      const stuck = new Promise<boolean>((resolve) => setTimeout(resolve, 500, false))
      if (!(await Promise.race([drained, stuck]))) {
        tell({ stalled: sent, id: stream.id })
        await drained
      }
    }
  tell({ wrote: bytes, id: stream.id })
}

async function connected(): Promise<Socket> {
  if (how === 'dial') {
    const socket = connect({ host, port: Number(port) })
    await once(socket, 'connect')
    return socket
  }
  const server = createServer()
  server.listen(Number(port), host)
  await once(server, 'listening')
  tell({ event: 'listening', port: (server.address() as AddressInfo).port })
  const [socket] = (await once(server, 'connection')) as [Socket]
  return socket
}

const tunnel = await drive(await connected())
createInterface({ input: process.stdin }).on('line', (line) => {
  const [word, bytes] = line.split(' ')
  if (word === 'write')
    void tunnel.open('tcp', Buffer.alloc(0)).then(
      async (stream) => {
        tell({ opened: stream.id })
        stream.onClose = ({ code }) => tell({ closed: code, id: stream.id })
        await write(stream, Number(bytes))
      },
      ({ code }: { code: string }) => tell({ refused: code }),
    )
  else if (word === 'read') {
    reading = true
    for (const read of onRead) read()
  } else tunnel.close('test.over')
})
