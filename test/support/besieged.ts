/** A gateway in a process of its own, a device and a vendor who use it, and attackers beside them. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { OpenedSession } from '#api'
import type { Attack, Place } from './abuse.ts'
import {
  atNode,
  freePort,
  grantFor,
  openSession,
  presenting,
  until,
  type Person,
  type TestNode,
} from './node.ts'
import { attach, Client, expecting, PLC, seen, type FakeAgent } from './tunnels.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const attacker = fileURLToPath(new URL('attacker.ts', import.meta.url))
const impatient = fileURLToPath(new URL('impatient.ts', import.meta.url))

export interface Besieged extends AsyncDisposable {
  readonly node: TestNode
  readonly pid: number
  /** What stands in its log so far, one JSON line each. */
  readonly log: readonly string[]
  /** The bystanders: a device with its agent, and a vendor's open session to it. */
  readonly agent: FakeAgent
  readonly client: Client
  readonly session: OpenedSession
  /** All that are open. */
  readonly sessions: readonly OpenedSession[]
  readonly vendor: Person
  /** Sends it a signal. */
  signal(name: NodeJS.Signals): void
  /** Its exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals | null>
  /** Resident memory of the gateway, in MiB. */
  rss(): number
  /** CPU seconds that it has used. */
  cpu(): number
  attack(attack: Attack): Promise<Attacking>
}

export interface Attacking extends AsyncDisposable {
  /** GOAWAY codes heard so far, each once. */
  readonly heard: readonly string[]
}

export interface Siege {
  /** A module that the gateway's process loads first. */
  readonly preload?: string
  /** More lines of its configuration. */
  readonly config?: string
}

export async function besieged({ preload, config = '' }: Siege = {}): Promise<Besieged> {
  const data = mkdtempSync(join(tmpdir(), 'sallyport-siege-'))
  const port = await freePort()
  const file = join(data, 'node.yaml')
  writeFileSync(file, `log_level: warn\n${config}`)
  const args = ['gateway', '--config', file, '--data', data, '--listen', `127.0.0.1:${port}`]
  const child = spawn(
    process.execPath,
    [
      '--import',
      impatient,
      ...(preload === undefined ? [] : ['--import', preload]),
      bin,
      ...args,
      '--operations',
      '127.0.0.1:0',
      '--public-host',
      'localhost',
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  const exited = once(child, 'exit').then(
    ([code, signal]: (number | NodeJS.Signals | null)[]) => code ?? signal ?? null,
  )
  const log: string[] = []
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', (line) => log.push(line))
  await until('the gateway has made its directory', () => exists(join(data, 'bootstrap-token')))
  await until('the port answers', async () => await answers(port, data))
  const node = await atNode(data, port)
  const operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
  const vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const staffed = async (id: string) => {
    const identity = await node.device(id, { plc: expecting() })
    const agent = await attach(node, identity, { listeners: { plc: seen(PLC, 'listener') } })
    await grantFor(vendor, operator, { device: id, process: 'plc' })
    return { identity, agent, session: await openSession(vendor, id, 'plc') }
  }
  const good = await staffed('press-01')
  const other = await staffed('press-02')
  const evil = await node.device('press-66')
  const client = await Client.dial(node)
  const place: Place = {
    port,
    anchor: node.anchor,
    from: '127.0.0.66',
    device: presenting(evil),
    session: { id: other.session.id, secret: other.session.secret },
  }
  return {
    node,
    pid: child.pid ?? 0,
    log,
    agent: good.agent,
    client,
    session: good.session,
    sessions: [good.session, other.session],
    vendor,
    signal: (name) => void child.kill(name),
    exited,
    rss: () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024,
    cpu: () => cpuOf(child),
    attack: async (attack) => await start(attack, place),
    async [Symbol.asyncDispose]() {
      for (const person of node.people()) await person[Symbol.asyncDispose]()
      await client[Symbol.asyncDispose]()
      for (const { agent } of [good, other]) agent.tunnel.close('agent.draining')
      child.kill('SIGTERM')
      await exited
      rmSync(data, { recursive: true, force: true })
    },
  }
}

function exists(path: string): boolean {
  try {
    return readFileSync(path).length > 0
  } catch {
    return false
  }
}

async function answers(port: number, data: string): Promise<boolean> {
  if (!exists(join(data, 'ca-root.pem'))) return false
  const { connect } = await import('node:net')
  const socket = connect({ port, host: '127.0.0.1' })
  const { promise, resolve } = Promise.withResolvers<boolean>()
  socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
  const yes = await promise
  socket.destroy()
  return yes
}

/** Fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms. */
function cpuOf({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

async function start(attack: Attack, place: Place): Promise<Attacking> {
  const child = spawn(process.execPath, [attacker], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const heard: string[] = []
  child.stdin.write(`${JSON.stringify({ attack: attack.name, place })}\n`)
  await once(lines, 'line')
  lines.on('line', (line) => heard.push(line))
  return {
    heard,
    async [Symbol.asyncDispose]() {
      const over = once(child, 'close')
      child.stdin.end()
      await over
    },
  }
}
