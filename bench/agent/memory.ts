/**
 * The memory of an agent as it runs on a device: the one file of `npm run build:agent`, made here, as a
 * process of its own against a gateway in this one, first left alone, then relaying 200 Mbit/s to a
 * target that swallows. Beside it, the same from the sources.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Directory, enrolled } from '../../test/agent/device.ts'
import { FakeGateway, openStream, proceed } from '../../test/agent/gateway.ts'
import type { Row } from '../row.ts'

const SALLYPORT = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const BUILD = fileURLToPath(new URL('../../deploy/agent/build.ts', import.meta.url))
const IDLE_MIB = 60
const RELAY_MIB = 90
const MBIT_PER_SECOND = 200
const EVERY_MS = 10
const PIECE = Buffer.alloc((MBIT_PER_SECOND * 1e6) / 8 / (1000 / EVERY_MS), 1)

/** VmRSS or VmHWM of a process, MiB. */
function memory(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]
  return Number(kib) / 1024
}

/** User and system time of a process so far, seconds. */
function cpuSeconds(pid: number): number {
  const [user = 0, system = 0] = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .split(') ')[1]!
    .split(' ')
    .slice(11, 13)
    .map(Number)
  return (user + system) / 100
}

interface Found {
  /** MiB. */
  readonly idle: number
  readonly relay: number
  readonly mbitPerSecond: number
  /** CPU of the agent for a gigabit, s. */
  readonly cpuPerGbit: number
}

/** One agent, started by `command`, left alone for `seconds`, then relaying for as long. */
async function measured(command: readonly string[], seconds: number): Promise<Found> {
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
  const args = [...command, 'agent', 'run', '--data', directory.path]
  const agent = spawn(process.execPath, args, { stdio: 'ignore' })
  try {
    const held = await gateway.nextTunnel()
    const pid = agent.pid ?? 0
    await sleep(seconds * 1000)
    const idle = memory(pid, 'VmRSS')
    const opened = await openStream(held, 'plc')
    proceed(opened)
    let behind = false
    opened.stream.onDrain = () => (behind = false)
    const [began, cpu] = [performance.now(), cpuSeconds(pid)]
    let sent = 0
    while (performance.now() - began < seconds * 1000) {
      const due = Math.floor((performance.now() - began) / EVERY_MS)
      while (!behind && sent < due) {
        behind = !opened.stream.write(PIECE)
        sent++
      }
      await sleep(EVERY_MS)
    }
    const mbit = (swallowed * 8) / 1e6
    return {
      idle,
      relay: memory(pid, 'VmHWM'),
      mbitPerSecond: mbit / ((performance.now() - began) / 1000),
      cpuPerGbit: (cpuSeconds(pid) - cpu) / (mbit / 1000),
    }
  } finally {
    const ended = once(agent, 'exit')
    agent.kill('SIGTERM')
    await ended
    server.close()
  }
}

/** Rows `idle_rss_mib`, `relay_rss_mib` and `relay_cpu_per_gbit`. */
export async function agentMemory(quick: boolean): Promise<Row[]> {
  const seconds = quick ? 6 : 20
  using out = new Directory()
  execFileSync(process.execPath, [BUILD, '--out', out.path], { stdio: 'ignore' })
  const built = await measured([join(out.path, 'sallyport-agent.cjs')], seconds)
  const sources = await measured([SALLYPORT], seconds)
  const from = (key: keyof Found, digits: number) =>
    `from the sources ${sources[key].toFixed(digits)}`
  return [
    {
      metric: 'idle_rss_mib',
      value: built.idle,
      unit: 'MiB',
      reference: `<= ${IDLE_MIB}; ${from('idle', 1)}`,
      spread: `after ${seconds} s`,
    },
    {
      metric: 'relay_rss_mib',
      value: built.relay,
      unit: 'MiB',
      reference: `<= ${RELAY_MIB}, the most of the whole life; ${from('relay', 1)}`,
      spread: `${built.mbitPerSecond.toFixed(0)} Mbit/s`,
    },
    {
      metric: 'relay_cpu_per_gbit',
      value: built.cpuPerGbit,
      unit: 's',
      reference: `CPU of the agent; ${from('cpuPerGbit', 2)}`,
    },
  ]
}
