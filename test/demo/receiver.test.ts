import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeReceiverFiles, type ReceiverFiles } from './certificates.ts'
import { until } from './failure.ts'
import { choosePorts } from './ports.ts'
import { readLine } from './programs.ts'
import { root } from './sallyport.ts'
import { setStage } from './stage.ts'

const directory = mkdtempSync(join(tmpdir(), 'sallyport-receiver-'))
const out = join(directory, 'received.jsonl')
const ports = await choosePorts(false)
const stage = setStage(directory, ports)
let files: ReceiverFiles

beforeAll(async () => {
  files = await makeReceiverFiles(directory)
  writeFileSync(join(directory, 'files.json'), JSON.stringify(files))
  const receiver = stage.programs.start({
    name: 'receiver',
    command: process.execPath,
    args: [
      join(root, 'test/demo/receiver.ts'),
      String(ports.siem),
      join(directory, 'files.json'),
      out,
    ],
    cwd: directory,
  })
  await receiver.line('listening', 20_000, (line) =>
    readLine(line)?.['msg'] === 'listening' ? true : undefined,
  )
})
afterAll(async () => {
  await stage.programs.stopAll()
  rmSync(directory, { recursive: true })
})

async function dial(withCertificate: boolean) {
  const socket = connect({
    port: ports.siem,
    host: '127.0.0.1',
    servername: 'siem.plant.test',
    ca: readFileSync(files.ca),
    ...(withCertificate
      ? { cert: readFileSync(files.clientCert), key: readFileSync(files.clientKey) }
      : {}),
  })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

test('frames cut anywhere arrive whole, in order, with their bytes', async () => {
  const bodies = [
    '{"message":"first"}',
    '{"message":"zweitens: größer ] \\\\ \\" ok"}',
    '{"message":"third"}',
  ]
  const messages = bodies.map((body, idx) => {
    const data = `[sallyport@32473 origin="o" idx="${idx}" uid="u${idx}" leaf="${'0'.repeat(64)}" cp="3-aa"]`
    return Buffer.from(
      `<110>1 2026-11-21T01:35:23.123Z gw1 sallyport - grant.request ${data} ${body}`,
    )
  })
  const bytes = Buffer.concat(
    messages.flatMap((message) => [Buffer.from(`${message.length} `), message]),
  )
  const socket = await dial(true)
  for (const byte of bytes) socket.write(Buffer.of(byte))
  socket.end()
  const lines = await until('three lines', 10_000, () => {
    const found = readFileSync(out, 'utf8').split('\n').filter(Boolean)
    return found.length === 3 ? found : undefined
  })
  expect(lines.map((line) => JSON.parse(line))).toEqual(
    bodies.map((body, idx) => ({
      idx,
      uid: `u${idx}`,
      leaf: '0'.repeat(64),
      msgid: 'grant.request',
      body,
    })),
  )
})

test('who shows no certificate is not heard', async () => {
  const before = readFileSync(out, 'utf8')
  const socket = await dial(false)
  socket.write('5 hello')
  await new Promise((resolve) => socket.once('close', resolve))
  expect(readFileSync(out, 'utf8')).toBe(before)
})
