/** A target of the agent's bench: accepts, sends back what it gets, prints its port. */
import { createServer } from 'node:net'

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy())
  socket.pipe(socket)
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (typeof address === 'object') console.log(address?.port)
})
process.stdin.on('end', () => process.exit(0)).resume()
