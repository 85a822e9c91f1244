/**
 * A small operator panel: one page, one script, one style sheet, and the press's registers as JSON,
 * read from the PLC over Modbus/TCP. Listens on one loopback port; a process of its own.
 *
 *     hmi-server hmi.ts PORT PLC_PORT
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'

const port = Number(process.argv[2])
const plc = Number(process.argv[3])
const READ_MS = 2_000

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Press 08</title>
<link rel="stylesheet" href="/panel.css">
</head>
<body>
<h1>Press 08</h1>
<dl>
<dt>Strokes</dt><dd id="strokes">-</dd>
<dt>Ram position</dt><dd id="position">-</dd>
<dt>Pressure</dt><dd id="pressure">-</dd>
<dt>Oil temperature</dt><dd id="temperature">-</dd>
</dl>
<p id="state">reading</p>
<script src="/panel.js"></script>
</body>
</html>
`
const STYLE = `body { font: 18px/1.5 system-ui, sans-serif; margin: 3rem; background: #10161d; color: #e8edf2 }
dl { display: grid; grid-template-columns: 12rem 1fr; gap: .4rem }
dd { margin: 0; font-variant-numeric: tabular-nums }
`
const SCRIPT = `const show = (id, text) => { document.getElementById(id).textContent = text }
async function read() {
  try {
    const answer = await fetch('/api/registers')
    const { registers } = await answer.json()
    show('strokes', String(registers[0]))
    show('position', (registers[1] / 10).toFixed(1) + ' mm')
    show('pressure', (registers[2] / 10).toFixed(1) + ' bar')
    show('temperature', (registers[3] / 10).toFixed(1) + ' \\u00b0C')
    show('state', 'live')
  } catch { show('state', 'no answer') }
  setTimeout(read, 500)
}
read()
`

/** Reads the first five holding registers; one connection a read, as simple panels do. */
async function readRegisters(): Promise<number[]> {
  const { promise, resolve, reject } = Promise.withResolvers<number[]>()
  const socket = connect(plc, '127.0.0.1')
  const request = Buffer.from([0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 5])
  let held: Buffer = Buffer.alloc(0)
  socket.setTimeout(READ_MS, () => socket.destroy(new Error('the PLC does not answer')))
  socket.on('connect', () => socket.write(request))
  socket.on('error', reject)
  socket.on('close', () => reject(new Error('the PLC closed the connection')))
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk])
    if (held.length < 19) return
    resolve([0, 1, 2, 3, 4].map((n) => held.readUInt16BE(9 + 2 * n)))
    socket.destroy()
  })
  return promise
}

interface Answer {
  readonly type: string
  readonly body: string
  readonly status?: number
}

const pages: Readonly<Record<string, () => Promise<Answer> | Answer>> = {
  '/': () => ({ type: 'text/html; charset=utf-8', body: PAGE }),
  '/panel.css': () => ({ type: 'text/css; charset=utf-8', body: STYLE }),
  '/panel.js': () => ({ type: 'text/javascript; charset=utf-8', body: SCRIPT }),
  '/api/registers': async () => ({
    type: 'application/json',
    body: JSON.stringify({ registers: await readRegisters() }),
  }),
}

async function reply(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '/').split('?')[0] ?? '/'
  const page = Object.hasOwn(pages, path) ? pages[path] : undefined
  const answer: Answer =
    page === undefined
      ? { type: 'text/plain; charset=utf-8', body: 'no such page\n', status: 404 }
      : await page()
  response.writeHead(answer.status ?? 200, {
    'content-type': answer.type,
    'content-length': Buffer.byteLength(answer.body),
    'cache-control': 'no-store',
  })
  response.end(request.method === 'HEAD' ? undefined : answer.body)
}

const server = createServer((request, response) => {
  request.resume()
  reply(request, response).catch((error: unknown) => {
    const text = error instanceof Error ? error.message : String(error)
    response.writeHead(502, { 'content-type': 'text/plain; charset=utf-8' })
    response.end(`${text}\n`)
  })
})
server.listen(port, '127.0.0.1', () => {
  const address = server.address()
  const bound = typeof address === 'object' && address !== null ? address.port : port
  console.log(JSON.stringify({ msg: 'listening', label: 'hmi', port: bound, pid: process.pid }))
})
process.on('SIGTERM', () => process.exit(0))
