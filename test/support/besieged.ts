/** A gateway in a process of its own, a device and a vendor who use it, and attackers beside them. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import type { OpenedSession } from '#api'
import type { Attack, Place } from './abuse.ts'
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
} from './node.ts'
import type { Apart } from './apart.ts'
import {
  attach,
  Client,
  expecting,
  PLC,
  seen,
  type AgentOptions,
  type FakeAgent,
} from './tunnels.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const attacker = fileURLToPath(new URL('attacker.ts', import.meta.url))
const apart = new URL('apart.ts', import.meta.url)
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
  /** CPU seconds of the thread that carries every tunnel. */
  cpu(): number
  attack(attack: Attack): Promise<Attacking>
}

export interface Attacking extends AsyncDisposable {
  /** GOAWAY codes heard so far, each once. */
  readonly heard: readonly string[]
  /** CPU seconds of the first thread of the attackers. */
  cpu(): number
}

export interface Siege {
  /** A module that the gateway's process loads first. */
  readonly preload?: string
  /** More lines of its configuration. */
  readonly config?: string
  /**
   * Attackers get only what nobody else wants of the processors, as if they ran on machines of their own; where this
   * process is a real-time one, what it and the gateway leave.
   */
  readonly idle?: boolean
}

export async function besieged({
  preload,
  config = '',
  idle = false,
}: Siege = {}): Promise<Besieged> {
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
  // Whoever started it may end without a goodbye.
  const orphan = () => void child.kill('SIGKILL')
  process.once('exit', orphan)
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
  const staffed = async <T>(id: string, present: (identity: DeviceIdentity) => Promise<T>) => {
    const agent = await present(await node.device(id, { plc: expecting() }))
    await grantFor(vendor, operator, { device: id, process: 'plc' })
    return { agent, session: await openSession(vendor, id, 'plc') }
  }
  const listeners = { plc: seen(PLC, 'listener') }
  const good = await staffed('press-01', (identity) => attach(node, identity, { listeners }))
  // What the vendor who attacks sends to it must not be the bystanders' work.
  const other = await staffed('press-02', (identity) => attachApart(node, identity, { listeners }))
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
    attack: async (attack) => await start(attack, place, idle),
    async [Symbol.asyncDispose]() {
      for (const person of node.people()) await person[Symbol.asyncDispose]()
      await client[Symbol.asyncDispose]()
      good.agent.tunnel.close('agent.draining')
      await other.agent.terminate()
      child.kill('SIGTERM')
      await exited
      process.off('exit', orphan)
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

/** An agent on a thread of its own, once it is attached. */
async function attachApart(
  { port, anchor }: TestNode,
  device: DeviceIdentity,
  options: AgentOptions,
): Promise<Worker> {
  const { key, chain } = device
  const worker = new Worker(apart, {
    workerData: { node: { port, anchor }, device: { key, chain }, options } satisfies Apart,
  })
  await once(worker, 'message')
  return worker
}

/** Fields 14 and 15 of the stat of the first thread, in ticks of 10 ms. */
function cpuOf({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/task/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** Whether this process, and so the gateway, goes before all ordinary ones (`chrt --rr 1`); field 41 of its stat. */
function isRealTime(): boolean {
  const fields = readFileSync('/proc/self/stat', 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return fields[38] === '1' || fields[38] === '2'
}

async function start(attack: Attack, place: Place, idle: boolean): Promise<Attacking> {
  // A niceness of 19 still has a bystander that wakes wait for an attacker that runs.
  const policy = isRealTime() ? ['--other', '0', process.execPath, attacker, 'ordinary'] : undefined
  const [command, args] = idle
    ? ['chrt', policy ?? ['--idle', '0', process.execPath, attacker]]
    : [process.execPath, [attacker]]
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const heard: string[] = []
  child.stdin.write(`${JSON.stringify({ attack: attack.name, place })}\n`)
  await once(lines, 'line')
  lines.on('line', (line) => heard.push(line))
  return {
    heard,
    cpu: () => cpuOf(child),
    async [Symbol.asyncDispose]() {
      const over = once(child, 'close')
      child.stdin.end()
      await over
    },
  }
}
