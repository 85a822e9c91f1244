/**
 * What the agent costs: finding who answers a connection among three hundred processes, and the memory
 * of an agent that waits and of one that relays.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { endpoint } from '../agent-tunnel/agent/scope/address.ts'
import type { FourTuple } from '../agent-tunnel/agent/scope/address.ts'
import { ProcessScope } from '../agent-tunnel/agent/scope/owner.ts'
import type { Sighting } from '../agent-tunnel/agent/scope/owner.ts'
import { scopeCut } from './agent/cut.ts'
import { agentMemory } from './agent/memory.ts'
import type { Bench, Row } from './row.ts'

const PROCESSES = 300
/** Beside standard input, output and error: ten descriptors each, as a small daemon has. */
const SLEEPER =
  'exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null 7</dev/null 8</dev/null 9</dev/null; exec sleep 600'
const TARGET = fileURLToPath(new URL('agent/target.ts', import.meta.url))
const LOOKUP_P50_MS = 2
const LOOKUP_P99_MS = 15

const processes = () => readdirSync('/proc').filter((name) => /^\d+$/.test(name)).length

/** Processes that hold descriptors and do nothing, until there are `PROCESSES` on the machine. */
async function crowd(): Promise<AsyncDisposable> {
  const sleepers: ChildProcess[] = []
  while (processes() < PROCESSES) {
    const child = spawn('/bin/sh', ['-c', SLEEPER], { stdio: 'ignore' })
    await once(child, 'spawn')
    sleepers.push(child)
  }
  return {
    async [Symbol.asyncDispose]() {
      for (const child of sleepers) child.kill('SIGKILL')
      const alive = (child: ChildProcess) => child.exitCode === null && child.signalCode === null
      await Promise.all(sleepers.filter(alive).map((child) => once(child, 'exit')))
    },
  }
}

interface Program extends AsyncDisposable {
  readonly port: number
}

async function startTarget(): Promise<Program> {
  const child = spawn(process.execPath, [TARGET], { stdio: ['pipe', 'pipe', 'inherit'] })
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  return {
    port: Number(line),
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  await once(socket, 'connect')
  return socket
}

function tupleOf(socket: Socket): FourTuple {
  const local = endpoint(socket.localAddress ?? '', socket.localPort ?? 0)
  const remote = endpoint(socket.remoteAddress ?? '', socket.remotePort ?? 0)
  if (local === undefined || remote === undefined) throw new Error('the target hung up')
  return { local, remote }
}

interface Times {
  /** From the established connection to the observation that is reported, ms. */
  readonly lookup: number[]
  /** From the established connection until every process has been looked at, ms. */
  readonly complete: number[]
  /** CPU of the whole, ms. */
  readonly cpu: number[]
  /** CPU until the report, ms. */
  readonly lookupCpu: number[]
}

async function timed(rounds: number): Promise<Times> {
  const times: Times = { lookup: [], complete: [], cpu: [], lookupCpu: [] }
  await using target = await startTarget()
  const scope = new ProcessScope()
  for (let round = -5; round < rounds; round++) {
    const socket = await dial(target.port)
    const dialled = tupleOf(socket)
    const cpu = process.cpuUsage()
    const began = performance.now()
    const sighting = found(await scope.observeAccepted(dialled, 5000))
    const lookup = performance.now() - began
    const early = process.cpuUsage(cpu)
    const again = await scope.recheck(sighting, true)
    if (again.state !== 'same') throw new Error(`the owner is ${again.state}`)
    const complete = performance.now() - began
    const used = process.cpuUsage(cpu)
    socket.destroy()
    if (round < 0) continue
    times.lookup.push(lookup)
    times.lookupCpu.push((early.user + early.system) / 1000)
    times.complete.push(complete)
    times.cpu.push((used.user + used.system) / 1000)
  }
  return times
}

function found(seen: Awaited<ReturnType<ProcessScope['observeAccepted']>>): Sighting {
  if (!seen.ok) throw new Error(seen.why)
  if (seen.sighting.observed.sha256 === null) throw new Error('the owner was not seen')
  return seen.sighting
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

async function lookups(quick: boolean): Promise<Row[]> {
  await using _crowd = await crowd()
  const { lookup, complete, cpu, lookupCpu } = await timed(quick ? 200 : 600)
  const among = `${processes()} processes`
  const spread = `p90 ${quantile(lookup, 0.9).toFixed(2)} ms`
  return [
    {
      metric: 'lookup_p50_ms',
      value: quantile(lookup, 0.5),
      unit: 'ms',
      spread,
      reference: `<= ${LOOKUP_P50_MS} ms; ${among}`,
    },
    {
      metric: 'lookup_p99_ms',
      value: quantile(lookup, 0.99),
      unit: 'ms',
      reference: `<= ${LOOKUP_P99_MS} ms; ${among}`,
    },
    {
      metric: 'lookup_cpu_ms',
      value: quantile(lookupCpu, 0.5),
      unit: 'ms',
      reference: 'CPU until the report',
    },
    {
      metric: 'complete_p50_ms',
      value: quantile(complete, 0.5),
      unit: 'ms',
      reference: 'lookup, then all processes: before a byte flows',
    },
    {
      metric: 'complete_p99_ms',
      value: quantile(complete, 0.99),
      unit: 'ms',
      reference: 'lookup, then all processes: before a byte flows',
    },
    {
      metric: 'opening_cpu_ms',
      value: quantile(cpu, 0.5),
      unit: 'ms',
      reference: 'CPU of lookup and complete look',
    },
  ]
}

export const bench: Bench = {
  name: 'agent',
  title:
    'who answers, among 300 processes; how soon a session ends with its process; memory idle and relaying',
  async run({ quick, only = [] }) {
    const wanted = (part: string) => only.length === 0 || only.includes(part)
    return [
      ...(wanted('lookup') ? await lookups(quick) : []),
      ...(wanted('cut') ? await scopeCut(quick) : []),
      ...(wanted('memory') ? await agentMemory(quick) : []),
    ]
  },
}
