/**
 * A controller that is written to: Modbus/TCP on a free loopback port, ten registers. It prints where it listens, and then
 * each request (PDU, as hex) before it answers, so that a test knows what reached it.
 */
import { createServer, type Socket } from 'node:net'
import { answer } from '../demo/targets/modbus.ts'

const registers = new Uint16Array(10)

/** The answer to a write (06, 10h), or undefined for anything else. */
function write(pdu: Buffer): Buffer | undefined {
  const code = pdu[0]
  const from = pdu.length >= 5 ? pdu.readUInt16BE(1) : 0
  if (code === 6) registers[from] = pdu.readUInt16BE(3)
  else if (code === 0x10)
    for (let at = 0; at < pdu.readUInt16BE(3); at++)
      registers[from + at] = pdu.readUInt16BE(6 + 2 * at)
  else return undefined
  return pdu.subarray(0, 5)
}

function respond(frame: Buffer): readonly Buffer[] {
  const pdu = frame.subarray(7)
  console.log(JSON.stringify({ pdu: pdu.toString('hex') }))
  const done = write(pdu)
  if (done === undefined) return answer(frame, registers)?.answers ?? []
  const head = Buffer.from(frame.subarray(0, 7))
  head.writeUInt16BE(done.length + 1, 4)
  return [Buffer.concat([head, done])]
}

function serve(socket: Socket): void {
  let held: Buffer = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk])
    while (held.length >= 6 && held.length >= 6 + held.readUInt16BE(4)) {
      const length = 6 + held.readUInt16BE(4)
      for (const bytes of respond(held.subarray(0, length))) socket.write(bytes)
      held = held.subarray(length)
    }
  })
  socket.on('error', () => socket.destroy())
}

const server = createServer(serve)
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  console.log(JSON.stringify({ port: typeof address === 'object' ? address?.port : 0 }))
})
process.on('SIGTERM', () => process.exit(0))
