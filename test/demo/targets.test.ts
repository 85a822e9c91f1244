import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { readings, startReads } from './connection.ts'
import { StepFailed } from './failure.ts'
import { choosePorts } from './ports.ts'
import { listening, processTree } from './proc.ts'
import { readLine } from './programs.ts'
import { setStage } from './stage.ts'
import { startHmi, startPlc } from './targets.ts'

const directory = mkdtempSync(join(tmpdir(), 'sallyport-targets-'))
const ports = await choosePorts(false)
// The vendor's tool reads straight from the PLC here: what is under test are the two ends.
const stage = setStage(directory, { ...ports, vendor: ports.plc })
const node = { path: process.execPath, sha256: '' }

afterAll(async () => {
  await stage.programs.stopAll()
  rmSync(directory, { recursive: true })
})

test('the PLC answers a stock client with changing registers, and the panel shows them', async () => {
  const plc = await startPlc(stage, node, 'plc')
  const reads = startReads(stage, 4, 150)
  expect(await reads.end).toBe(0)
  const strokes = readings(reads).map(({ registers }) => registers[0])
  expect(new Set(strokes).size).toBeGreaterThan(1)

  const hmi = await startHmi(stage, node)
  const page = await fetch(`http://127.0.0.1:${ports.hmi}/`)
  expect(await page.text()).toContain('<h1>Press 08</h1>')
  const values: unknown = await (await fetch(`http://127.0.0.1:${ports.hmi}/api/registers`)).json()
  expect(values).toEqual({ registers: expect.any(Array) })
  expect((await fetch(`http://127.0.0.1:${ports.hmi}/constructor`)).status).toBe(404)

  expect(listening(processTree(plc.pid))).toEqual([`tcp 127.0.0.1:${ports.plc}`])
  expect(listening(processTree(hmi.pid))).toEqual([`tcp 127.0.0.1:${ports.hmi}`])

  const loop = startReads(stage, 0, 20)
  await loop.line('a read', 10_000, (line) =>
    readLine(line)?.['read'] === undefined ? undefined : true,
  )
  await plc.stop()
  expect(await loop.end).toBe(1)
  expect(readLine(loop.lines.at(-1) ?? '')).toMatchObject({ closed: true, at: expect.any(Number) })

  const none = await fetch(`http://127.0.0.1:${ports.hmi}/api/registers`)
  expect(none.status).toBe(502)
})

test('a program that cannot do its work fails the step with what it said', async () => {
  const blocker = await startPlc(stage, node, 'first')
  await expect(startPlc(stage, node, 'second')).rejects.toThrow(StepFailed)
  await expect(startPlc(stage, node, 'second')).rejects.toThrow(/syscall: 'listen'/)
  await blocker.kill()
  expect(blocker.ended).toBe('SIGKILL')
})

test('sockets of every family and kind are found', async () => {
  const { createServer } = await import('node:net')
  const { createSocket } = await import('node:dgram')
  const { once } = await import('node:events')
  const before = new Set(listening([process.pid]))
  await using six = createServer().listen(0, '::1')
  await using udp = createSocket('udp4').bind(0, '127.0.0.1')
  await Promise.all([once(six, 'listening'), once(udp, 'listening')])
  const fresh = listening([process.pid]).filter((socket) => !before.has(socket))
  const tcp = six.address()
  expect(fresh.toSorted()).toEqual([
    `tcp [0:0:0:0:0:0:0:1]:${typeof tcp === 'object' && tcp !== null ? tcp.port : 0}`,
    `udp 127.0.0.1:${udp.address().port}`,
  ])
})
