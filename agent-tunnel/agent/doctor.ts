/**
 * Walks the way to the gateway hop by hop and names the first one that is broken, with the fix. Changes
 * nothing: while the agent runs, the tunnel is judged by what that agent says, not by a second one that
 * would take its place.
 */
import { printAddress, systemClock } from '#tunnel'
import { DeviceClock } from './clock.ts'
import { readConfig } from './config.ts'
import type { AgentConfig } from './config.ts'
import { Refused } from './ask.ts'
import type { Spawned } from './spawn/declaration.ts'
import { Program } from './spawn/program.ts'
import { Sandbox } from './spawn/sandbox.ts'
import { listenedFor, reachedAt } from './target.ts'
import { carry, dialGateway } from './connect.ts'
import { examineOthers } from './doctor-gateways.ts'
import type { Dialled } from './connect.ts'
import { AgentError, agentCodes, messageOf } from './errors.ts'
import { openIdentity } from './pkcs11.ts'
import type { Pair } from './identity.ts'
import { assertNoIsland } from './island.ts'
import { printEndpoint } from './scope/address.ts'
import { ProcessScope } from './scope/owner.ts'
import { readStatus } from './status.ts'
import { openProxy, withWay } from './way.ts'
import type { Way } from './way.ts'

export interface Finding {
  readonly hop: string
  /** `unknown`: not reached, or there was nothing to look at. */
  readonly verdict: 'ok' | 'broken' | 'unknown'
  readonly says: string
  readonly next?: string
  readonly code?: string
}

const HOPS = [
  'config',
  'identity',
  'dns',
  'tcp',
  'proxy',
  'tls',
  'certificate',
  'clock',
  'websocket',
  'tunnel',
] as const
type Hop = (typeof HOPS)[number]

/** A gateway that refuses does so within a round trip; so long is listened for it. */
const REFUSAL_MS = 1500
const CLOCK_TOLERANCE_MS = 300_000

class Examination {
  readonly findings: Finding[] = []
  #hops: readonly Hop[] = HOPS

  /** Leaves out what is not on the way. */
  without(hop: Hop): void {
    this.#hops = this.#hops.filter((one) => one !== hop)
  }

  ok(hop: Hop, says: string): void {
    this.findings.push({ hop, verdict: 'ok', says })
  }

  /** The hop an error belongs to is broken; what came before it and was not yet told, worked. */
  broken(error: unknown): void {
    const known = error instanceof AgentError ? error : undefined
    const hop = known === undefined ? 'tunnel' : agentCodes[known.code].hop
    for (const before of this.#hops) {
      if (before === hop) break
      if (!this.#told(before)) this.ok(before, 'passed')
    }
    this.bad(error)
  }

  /** The hop an error belongs to is broken, and others are looked at all the same. */
  bad(error: unknown): void {
    const known = error instanceof AgentError ? error : undefined
    const hop = known === undefined ? 'tunnel' : agentCodes[known.code].hop
    const rest = known === undefined ? {} : { next: known.next, code: known.code }
    this.findings.push({ hop, verdict: 'broken', says: messageOf(error), ...rest })
  }

  finish(): readonly Finding[] {
    for (const hop of this.#hops) {
      if (!this.#told(hop)) this.findings.push({ hop, verdict: 'unknown', says: 'not reached' })
    }
    return this.findings
  }

  #told(hop: string): boolean {
    return this.findings.some((finding) => finding.hop === hop)
  }
}

/** Examines the agent of a data directory, on another way where one is given. Never rejects for what it finds. */
export async function examineAgent(
  dataDir: string,
  signal: AbortSignal,
  way: Way = {},
): Promise<readonly Finding[]> {
  const about = new Examination()
  let config: AgentConfig | undefined
  // Who is cut off dials nobody, to look neither.
  let cutOff = true
  try {
    config = withWay(readConfig(dataDir), way)
    about.ok(
      'config',
      `device ${config.device}, gateway ${config.gateway.host} port ${config.gateway.port}`,
    )
    assertNoIsland(dataDir)
    cutOff = false
    if (config.proxy === undefined) about.without('proxy')
    if (config.carrier === 'tls') about.without('websocket')
    await examineWay(config, about, signal)
  } catch (error) {
    about.broken(error)
  }
  const others = config === undefined || cutOff ? [] : await examineOthers(config, signal)
  const targets = config === undefined ? [] : await examineTargets(config)
  return [...about.finish(), ...others, ...targets]
}

async function examineWay(
  config: AgentConfig,
  about: Examination,
  signal: AbortSignal,
): Promise<void> {
  const clock = new DeviceClock({ monotonic: systemClock, dataDir: config.dataDir })
  const identity = openIdentity(config)
  const anchors = identity.anchors(config.rootSha256)
  const [pair] = identity.pairs()
  if (pair === undefined || anchors === undefined) throw notEnrolled(config)
  clock.notBefore(pair.notBefore)
  const ended = endedBy(clock, pair)
  if (ended === undefined) about.ok('identity', named(pair))
  else about.bad(ended)
  await examineName(config, about)
  const dialled = await dialGateway({
    config,
    use: 'tunnel',
    anchors,
    now: () => clock.now(),
    system: () => clock.system(),
    pair,
    signal,
  })
  const { version, cipher, group } = dialled.tls
  const proxy = openProxy(config.proxy)
  const peer = `${dialled.socket.remoteAddress ?? config.gateway.host}`
  about.ok('tcp', proxy === undefined ? `connected to ${peer}` : `connected to the proxy ${peer}`)
  if (proxy !== undefined)
    about.ok(
      'proxy',
      `${proxy.scheme} proxy ${printAddress(proxy)} goes to ${printAddress(config.gateway)}`,
    )
  about.ok('tls', `${version}, ${cipher}, key exchange ${group ?? 'unknown'}`)
  about.ok('certificate', 'the gateway is under the pinned root and named as dialled')
  examineClock(clock, about)
  if (ended === undefined) await examineTunnel(config, dialled, about)
  else dialled.socket.destroy()
}

const named = ({ leaf }: Pair): string =>
  `certificate ${leaf.serialNumber.toLowerCase()}, until ${leaf.validToDate.toISOString()}`

/** A certificate that has ended by this device's clock, be that right or wrong. */
function endedBy(clock: DeviceClock, pair: Pair): AgentError | undefined {
  const now = clock.now()
  if (now <= pair.notAfter) return undefined
  return new AgentError(
    'identity.expired',
    `By this device's clock (${new Date(now).toISOString()}) it has ended: ${named(pair)}.`,
    'Set the clock if that is wrong. The agent renews an ended certificate by itself within its grace; after that, enrol again.',
  )
}

/** Behind a proxy it is the proxy's name that is looked up here, and the proxy looks up the gateway's. */
async function examineName({ gateway, proxy }: AgentConfig, about: Examination): Promise<void> {
  const by = openProxy(proxy)
  const { host } = by ?? gateway
  try {
    const { lookup } = await import('node:dns/promises')
    const found = await lookup(host, { all: true })
    const whose = by === undefined ? '' : ' (the proxy)'
    about.ok('dns', `${host}${whose} is ${found.map(({ address }) => address).join(', ')}`)
  } catch (error) {
    throw new AgentError(
      by === undefined ? 'gateway.name_unknown' : 'proxy.name_unknown',
      `The name ${host} could not be looked up: ${messageOf(error)}.`,
      `Check the ${by === undefined ? "gateway's" : "proxy's"} name in agent.json and the name servers of this device.`,
      { cause: error },
    )
  }
}

function examineClock(clock: DeviceClock, about: Examination): void {
  const off = Math.abs(clock.offMs)
  const says =
    off > CLOCK_TOLERANCE_MS
      ? `${Math.round(off / 60_000)} min behind; dates are taken from the certificate`
      : 'plausible'
  about.ok('clock', `${new Date().toISOString()}, ${says}`)
}

async function examineTunnel(
  config: AgentConfig,
  dialled: Dialled,
  about: Examination,
): Promise<void> {
  const running = readStatus(config.dataDir)
  if (running?.alive === true) {
    dialled.socket.destroy()
    const { state, since, gateway, last_error: last } = running.status
    if (state === 'connected')
      return about.ok(
        'tunnel',
        `the running agent is connected to ${gateway ?? '?'} since ${since}`,
      )
    throw new AgentError(
      'tunnel.failed',
      `The running agent is not connected: ${last?.message ?? 'it is dialling'}`,
      'Wait for its next attempt, or restart it.',
    )
  }
  const tunnel = await carry(config, dialled.socket, {
    role: 'agent',
    instance: 'doctor',
    epoch: 0,
  })
  if (config.carrier === 'websocket') about.ok('websocket', 'the gateway took the upgrade')
  const patience = Promise.withResolvers<undefined>()
  const timer = setTimeout(patience.resolve, REFUSAL_MS, undefined)
  const reason = await Promise.race([tunnel.closed, patience.promise])
  clearTimeout(timer)
  tunnel.close('agent.doctor')
  if (reason === undefined)
    return about.ok(
      'tunnel',
      'the gateway speaks the protocol and does not refuse; no agent runs here',
    )
  throw new AgentError(
    'tunnel.refused',
    `The gateway refused the tunnel of this device: ${reason.message} (${reason.code}).`,
    'Ask an operator why; the gateway has it in its log under this code.',
    { serverCode: reason.code },
  )
}

async function examineTargets(config: AgentConfig): Promise<Finding[]> {
  const local = listenedFor(config.targets)
  const scope = new ProcessScope()
  const seen = await scope.exposures(local.map(([, target]) => reachedAt(target)))
  const findings = local.map(([name, { endpoint: end }], at): Finding => {
    const hop = `target ${name}`
    const listener = seen[at]?.observed ?? null
    if (listener === null) {
      const says = `nothing listens on ${printEndpoint(end)}`
      return {
        hop,
        verdict: 'broken',
        says,
        next: `Start the process, or correct targets.${name} in agent.json.`,
      }
    }
    if (listener.sha256 === null) {
      const says = `something listens on ${printEndpoint(end)}, but its executable may not be seen`
      const next =
        'Run the agent as the same user, or give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (docs/process-scope.md).'
      return { hop, verdict: 'broken', says, next }
    }
    return {
      hop,
      verdict: 'ok',
      says: `${listener.exe ?? 'an unnamed file'} (${listener.sha256.slice(0, 16)}…) on ${printEndpoint(end)}`,
    }
  })
  const programs = await Promise.all(
    [...config.targets].flatMap(([name, target]) =>
      target.kind === 'spawn' ? [examineProgram(scope, config.dataDir, [name, target])] : [],
    ),
  )
  const all = [...findings, ...programs]
  return local.length === 0 ? all : [...all, ...unreadable(scope.unreadable)]
}

/** Whether the program could be started, and would end with its session; it is not started. */
async function examineProgram(
  scope: ProcessScope,
  dataDir: string,
  [name, declared]: readonly [name: string, declared: Spawned],
): Promise<Finding> {
  const hop = `target ${name}`
  try {
    using program = await Program.open(declared, scope.executables, 'listener')
    const sandbox = await Sandbox.make(program.user.uid, dataDir)
    try {
      await sandbox.tryEntering()
    } finally {
      await sandbox.end()
    }
    const { exe, sha256, uid } = program.observed
    const says = `${exe ?? declared.argv[0]} (${sha256?.slice(0, 16)}…) can be started as user ${uid}`
    return { hop, verdict: 'ok', says }
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    const next =
      error.code === 'spawn.unavailable'
        ? 'Give the agent CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETUID, CAP_SETGID, CAP_SETPCAP and for a terminal CAP_CHOWN, or declare its own user (docs/process-scope.md).'
        : `Correct targets.${name} in agent.json.`
    return { hop, verdict: 'broken', says: error.message, next }
  }
}

/** Said only where there is something to say: at the level that sees all, there is not. */
function unreadable(count: number): Finding[] {
  if (count === 0) return []
  const says = `${count} processes may not be read: whether one of them shares a target's socket is not shown`
  const next =
    'Where policy needs to know, give the agent CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (docs/process-scope.md).'
  return [{ hop: 'processes', verdict: 'unknown', says, next }]
}

function notEnrolled(config: AgentConfig): AgentError {
  return new AgentError(
    'identity.missing',
    `The device ${config.device} has no certificate yet.`,
    'Run `sallyport agent enroll` with a token for this device.',
  )
}
