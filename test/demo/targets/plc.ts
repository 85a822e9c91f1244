/**
 * A pretend press controller: Modbus/TCP on one loopback port, holding registers that change ten
 * times a second. Runs as a process of its own, from an executable of its own (a copy of the
 * runtime under the PLC's name), so that the device has something definite to recognise.
 *
 *     plc-server plc.ts PORT LABEL
 *
 * Registers: 0 strokes (counts up), 1 ram position in 0.1 mm, 2 hydraulic pressure in 0.1 bar,
 * 3 oil temperature in 0.1 degrees C, 4 status word (1 running), 5..9 zero.
 */
import { createServer, type Socket } from 'node:net'
import { answer } from './modbus.ts'

const port = Number(process.argv[2])
const label = process.argv[3] ?? 'plc'
const registers = new Uint16Array(10)
registers[4] = 1

function turn(): void {
  const strokes = ((registers[0] ?? 0) + 1) & 0xff_ff
  const angle = (strokes % 40) / 40
  registers[0] = strokes
  registers[1] = Math.round(1200 + 1000 * Math.sin(2 * Math.PI * angle))
  registers[2] = Math.round(1800 + 250 * Math.cos(2 * Math.PI * angle))
  registers[3] = 452 + (strokes % 7)
}

function serve(socket: Socket): void {
  let held: Buffer = Buffer.alloc(0)
  socket.setNoDelay(true)
  socket.on('data', (chunk: Buffer) => {
    const exchange = answer(Buffer.concat([held, chunk]), registers)
    if (exchange === undefined) {
      socket.destroy()
      return
    }
    held = exchange.rest
    for (const bytes of exchange.answers) socket.write(bytes)
  })
  socket.on('error', () => socket.destroy())
}

const server = createServer(serve)
server.listen(port, '127.0.0.1', () => {
  const address = server.address()
  const bound = typeof address === 'object' && address !== null ? address.port : port
  console.log(JSON.stringify({ msg: 'listening', label, port: bound, pid: process.pid }))
})
setInterval(turn, 100)
process.on('SIGTERM', () => process.exit(0))
