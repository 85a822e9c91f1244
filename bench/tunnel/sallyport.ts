/**
 * Our own path: a gateway from embedded defaults with policy, metering and log on, agents on devices
 * enrolled like any, and sessions under grants that somebody approved. Each a process of its own.
 */
import { createHash } from 'node:crypto'
import { createReadStream, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Device } from '#api'
import { readLine, type Program, type Programs } from '../../test/demo/programs.ts'
import {
  atNode,
  freePort,
  grantFor,
  openSession,
  presenting,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../test/support/node.ts'
import type { Session } from './line.ts'
import { OBLIGATIONS } from '../../policy/obligations.ts'
import type { Path, Peer, Site } from './path.ts'
import { programsIn } from './programs.ts'

const bin = resolve(import.meta.dirname, '../../cli/bin.mjs')
const limits = pathToFileURL(join(import.meta.dirname, 'limits.ts')).href
const START_MS = 60_000
/** An agent serves at most 1,024 streams at once; on the first, one is for small requests. */
const PER_AGENT = 1023
const PROCESS = 'target'
/** A session holds so many connections at most: the product's own ceiling. */
const STREAMS = OBLIGATIONS.max_streams.ceiling

/** Where Node writes a CPU profile of gateway and agents when they end, if anybody wants one. */
const profiles = process.env['SALLYPORT_BENCH_PROFILES']
const profiled = profiles === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profiles}`]

export const sallyport: Peer = {
  name: 'sallyport',
  says: 'client tunnel → gateway (policy, meter, log) → tunnel → agent',
  start: startSallyport,
}

/** Our own path, and the node behind it for what else is asked of it. */
export interface SallyportPath extends Path {
  readonly node: TestNode
  readonly gateway: Program
  /** One more device on the node, with an agent and a session of its own; all of it ends with the path. */
  beside(device: string, target: number): Promise<Path>
}

export async function startSallyport(site: Site): Promise<SallyportPath> {
  const directory = join(site.directory, 'sallyport')
  mkdirSync(directory, { recursive: true })
  const programs = programsIn(directory)
  try {
    const { gateway, node } = await startGateway(programs, directory)
    const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
    const sha256 = await digest(realpathSync(process.execPath))
    const staffed = async (id: string, target: number, lines: number) => {
      const expecting = { kind: 'tcp', expect: { sha256: [sha256] } }
      const device = await node.device(id, { [PROCESS]: expecting })
      const port = await site.uplink(node.port)
      const targets = { [PROCESS]: target }
      const agent = await startAgent({ programs, directory, node, device, port, targets })
      return { agent, sessions: await sessionsOf(node, vendor, id, lines) }
    }
    const agents: Program[] = []
    const sessions: Session[] = []
    for (let left = site.lines, at = 0; left > 0; left -= PER_AGENT, at++) {
      const device = await staffed(`press-${at}`, site.target, Math.min(left, PER_AGENT))
      agents.push(device.agent)
      sessions.push(...device.sessions)
    }
    // One more for small requests, on the first device, among the bulk.
    const echo = await openSession(vendor, 'press-0', PROCESS)
    sessions.push({ id: echo.id, secret: echo.secret, streams: STREAMS })
    const entry = { kind: 'sallyport', port: node.port, anchor: node.anchor } as const
    return {
      node,
      gateway,
      async beside(id, target) {
        const device = await staffed(id, target, 1)
        return {
          entry: { ...entry, sessions: device.sessions },
          hops: { gateway: [gateway.pid], agent: [device.agent.pid] },
          [Symbol.asyncDispose]: () => device.agent.stop(),
        }
      },
      entry: { ...entry, sessions },
      hops: { gateway: [gateway.pid], agent: agents.map(({ pid }) => pid) },
      async [Symbol.asyncDispose]() {
        await node[Symbol.asyncDispose]()
        await programs.stopAll()
      },
    }
  } catch (error) {
    await programs.stopAll()
    throw error
  }
}

/** One person opens sessions as fast as they are opened: that is what is measured. */
const RATES = 'api_rates: { reads: 0, writes: 0, costly: 2, strangers: 20 }\n'

/** A gateway with the numbers of limits.ts and these lines of configuration, ready, and its first administrator signed in. */
export async function startGateway(programs: Programs, directory: string, more = '') {
  const [port, operations] = [await freePort(), await freePort()]
  const config = join(directory, 'gateway.yaml')
  const data = join(directory, 'data')
  writeFileSync(
    config,
    `listen: 127.0.0.1:${port}\noperations: 127.0.0.1:${operations}\ndata: ./data\n${RATES}${more}`,
  )
  const gateway = programs.start({
    name: 'gateway',
    command: process.execPath,
    args: [...profiled, '--import', limits, bin, 'gateway', '--config', config],
    cwd: directory,
  })
  await gateway.line('its ready line', START_MS, (line) =>
    readLine(line)?.['msg'] === 'ready' ? true : undefined,
  )
  return { gateway, node: await atNode(data, port) }
}

/** Sessions of at most `STREAMS` connections, as many as `lines` take, all under one grant. */
async function sessionsOf(
  node: TestNode,
  vendor: Person,
  device: string,
  lines: number,
): Promise<Session[]> {
  await grantFor(vendor, node.admin, { device, process: PROCESS, duration_s: 7200 })
  const sessions: Session[] = []
  for (let left = lines; left > 0; left -= STREAMS) {
    const { id, secret } = await openSession(vendor, device, PROCESS)
    sessions.push({ id, secret, streams: Math.min(left, STREAMS) })
  }
  return sessions
}

export interface AgentStart {
  readonly programs: Programs
  readonly directory: string
  readonly node: TestNode
  readonly device: DeviceIdentity
  /** The gateway's port as this device dials it. */
  readonly port: number
  /** Ports of this machine, by process. */
  readonly targets: Readonly<Record<string, number>>
}

/** Lays its identity where an agent keeps it (docs/agent.md), starts it, waits until it is connected. */
export async function startAgent(start: AgentStart): Promise<Program> {
  const { programs, directory, node, device, port, targets } = start
  const data = join(directory, device.id)
  mkdirSync(join(data, 'identity', 'a'), { recursive: true, mode: 0o700 })
  const file = (name: string, text: string) =>
    writeFileSync(join(data, name), text, { mode: 0o600 })
  const pin = readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').trim().split(/\s/)[0]
  const config = {
    v: 1,
    gateway: `https://localhost:${port}`,
    device: device.id,
    ca_sha256: pin,
    targets: Object.fromEntries(
      Object.entries(targets).map(([name, at]) => [name, { tcp: `127.0.0.1:${at}` }]),
    ),
  }
  const { key, cert } = presenting(device)
  const [, ...issuing] =
    cert.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? []
  file('agent.json', JSON.stringify(config))
  file('identity/a/key.pem', key)
  file('identity/a/chain.pem', cert)
  file('ca.pem', [node.anchor, ...issuing].join(''))
  const agent = programs.start({
    name: `agent-${device.id}`,
    command: process.execPath,
    args: [...profiled, bin, 'agent', 'run', '--data', data],
    cwd: directory,
  })
  await until(`${device.id} connected and its target seen`, async () => {
    const seen = await node.admin.ask<Device>('GET', `/devices/${device.id}`)
    return (
      seen.connected && seen.processes.every(({ listener }) => typeof listener?.sha256 === 'string')
    )
  })
  return agent
}

/** SHA-256 of a file, hex. */
export async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk as Buffer)
  return hash.digest('hex')
}
