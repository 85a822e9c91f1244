/**
 * The vendor's own tool: a stock Modbus client library reading holding registers through whatever
 * local port it is given; it knows nothing of Sallyport. One JSON line per event on stdout.
 *
 *     node vendor-reads.ts PORT COUNT INTERVAL_MS
 *
 * COUNT 0 reads until the connection ends. Lines: {"read":[…],"at":ms}, {"failed":code,"at":ms} and,
 * last, {"closed":true,"at":ms,"reads":n,"last_read_at":ms|null}. Instants are epoch milliseconds.
 * Exits 0 if it read what was asked for, 1 if the connection ended first.
 */
import { connect } from 'node:net'
import { client } from 'jsmodbus'

const [port = 0, count = 0, interval = 50] = process.argv.slice(2).map(Number)
const now = (): number => performance.timeOrigin + performance.now()
const say = (line: object): void => console.log(JSON.stringify(line))

const socket = connect(port, '127.0.0.1')
const modbus = new client.TCP(socket, 1, 5_000)
let reads = 0
let last: number | null = null
let ended = false

socket.on('error', (error) =>
  say({ failed: 'code' in error ? error.code : error.message, at: now() }),
)
socket.on('close', () => {
  ended = true
  say({ closed: true, at: now(), reads, last_read_at: last })
  process.exitCode = count > 0 && reads >= count ? 0 : 1
})
socket.on('connect', () => void loop())

async function loop(): Promise<void> {
  while (!ended && (count === 0 || reads < count)) {
    try {
      const { response } = await modbus.readHoldingRegisters(0, 5)
      reads++
      last = now()
      say({ read: [...response.body.valuesAsArray], at: last })
    } catch (error) {
      // The library learns of the end after the socket has told it: the last line stays the last.
      if (!ended) say({ failed: describe(error), at: now() })
      socket.destroy()
      return
    }
    await new Promise((resolve) => setTimeout(resolve, interval))
  }
  socket.end()
}

/** The library rejects with a plain object {err, message}. */
function describe(error: unknown): string {
  if (typeof error !== 'object' || error === null) return String(error)
  return 'err' in error && typeof error.err === 'string' ? error.err : 'connection ended'
}
