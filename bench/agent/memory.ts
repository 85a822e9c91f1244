/**
 * The memory of an agent: `sallyport agent run` as a process of its own, against a gateway in this one,
 * first left alone, then relaying 200 Mbit/s to a target that swallows and to one that speaks.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Directory, enrolled } from '../../test/agent/device.ts'
import { FakeGateway, openStream, proceed } from '../../test/agent/gateway.ts'
import type { Row } from '../row.ts'

const SALLYPORT = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const IDLE_MIB = 60
const RELAY_MIB = 90
const MBIT_PER_SECOND = 200
const EVERY_MS = 10
const PIECE = Buffer.alloc((MBIT_PER_SECOND * 1e6) / 8 / (1000 / EVERY_MS), 1)
const BUILD = 'sources run as they are; the bar is for the bundled build'

/** VmRSS or VmHWM of a process, MiB. */
function memory(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]
  return Number(kib) / 1024
}

/** Rows `idle_rss_mib` and `relay_rss_mib`. */
export async function agentMemory(quick: boolean): Promise<Row[]> {
  const seconds = quick ? 6 : 20
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  let swallowed = 0
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => (swallowed += chunk.length))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${port}`])
  const agent = spawn(process.execPath, [SALLYPORT, 'agent', 'run', '--data', directory.path], {
    stdio: 'ignore',
  })
  try {
    const held = await gateway.nextTunnel()
    const pid = agent.pid ?? 0
    await sleep(seconds * 1000)
    const idle = memory(pid, 'VmRSS')
    const opened = await openStream(held, 'plc')
    proceed(opened)
    let behind = false
    opened.stream.onDrain = () => (behind = false)
    const began = performance.now()
    let sent = 0
    while (performance.now() - began < seconds * 1000) {
      const due = Math.floor((performance.now() - began) / EVERY_MS)
      while (!behind && sent < due) {
        behind = !opened.stream.write(PIECE)
        sent++
      }
      await sleep(EVERY_MS)
    }
    const rate = (swallowed * 8) / 1e6 / ((performance.now() - began) / 1000)
    const relay = memory(pid, 'VmHWM')
    return [
      {
        metric: 'idle_rss_mib',
        value: idle,
        unit: 'MiB',
        reference: `<= ${IDLE_MIB}; ${BUILD}`,
        spread: `after ${seconds} s`,
      },
      {
        metric: 'relay_rss_mib',
        value: relay,
        unit: 'MiB',
        reference: `<= ${RELAY_MIB}, the most of ${seconds} s; ${BUILD}`,
        spread: `${rate.toFixed(0)} Mbit/s`,
      },
    ]
  } finally {
    const ended = once(agent, 'exit')
    agent.kill('SIGTERM')
    await ended
    server.close()
  }
}
