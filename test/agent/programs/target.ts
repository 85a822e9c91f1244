/**
 * A target for scope tests, run as a process of its own: `target.ts MODE [HOST]`. Prints its port, then
 * serves by its mode:
 *   echo      sends back what it gets
 *   give      gives each accepted socket to a child, and lets go of it
 *   share     gives each accepted socket to a child running another program, and keeps it as well
 *   later     says hello when it is spoken to, and by then has given the socket to a program that is nobody's child
 *   door      sends back what it gets; opens a second port when it reads a line, and prints it
 *   exec      gives each socket to a shell that replaces itself by another program on the first line it reads
 */
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

const [mode = 'echo', host = '127.0.0.1'] = process.argv.slice(2)

const shells: Readonly<Record<string, readonly string[]>> = {
  share: ['-c', 'exec sleep 60'],
  exec: ['-c', 'read line; exec sleep 60'],
}

function giveAway(socket: Socket): void {
  const script = 'exec 3<&0; (exec cat <&3) & exit'
  const child = spawn('sh', ['-c', script], { stdio: [socket, 'ignore', 'ignore'] })
  child.on('exit', () => socket.write('hello'))
}

const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => {})
  if (mode === 'echo' || mode === 'door') {
    socket.pipe(socket)
    return
  }
  if (mode === 'later') return void socket.once('data', () => giveAway(socket))
  socket.pause()
  if (mode === 'give') {
    const child = spawn(process.execPath, [...process.argv.slice(1, 2), 'heir'], {
      stdio: [socket, socket, 'ignore'],
    })
    child.on('spawn', () => socket.destroy())
    return
  }
  const child = spawn('sh', shells[mode] ?? [], { stdio: [socket, 'ignore', 'ignore'] })
  if (mode === 'exec') child.on('spawn', () => socket.destroy())
  process.on('exit', () => child.kill('SIGKILL'))
})
// The same script as its parent: what differs would be another program.
if (mode === 'heir') process.stdin.pipe(process.stdout)
else {
  server.listen({ port: 0, host, ipv6Only: false }, () => {
    const address = server.address()
    if (typeof address === 'object') console.log(address?.port)
  })
  process.stdin.on('end', () => process.exit(0)).resume()
}
process.on('SIGTERM', () => process.exit(0))
if (mode === 'door')
  process.stdin.once('data', () => {
    const second = createServer((socket) => void socket.destroy())
    second.listen(0, host, () => console.log((second.address() as AddressInfo).port))
  })
