/**
 * What stands behind a process name: an endpoint of this machine or beside it, by TCP or UDP, or a
 * program to start. Read from agent.json and the command line, and printed again; nothing is dialled here.
 */
import type { At } from './at.ts'
import { declarationOf, printDeclaration } from './spawn/declaration.ts'
import type { Spawned } from './spawn/declaration.ts'
import { endpoint, isLoopback, isWildcard, printEndpoint } from './scope/address.ts'
import type { Endpoint, Reached } from './scope/address.ts'

/** `tcp`, `udp`: on this machine, its owner is observed. `lan`, `lan_udp`: on the network beside it. */
export type DialledKind = 'tcp' | 'udp' | 'lan' | 'lan_udp'

export interface Dialled {
  readonly kind: DialledKind
  readonly endpoint: Endpoint
}

/** What stands behind a name, without what its owner wants to be asked. */
export type Body = Dialled | Spawned

export type Target = Body & {
  /** A session to it waits until somebody on the device has said yes. */
  readonly consent: boolean
}

const DIALLED: readonly DialledKind[] = ['tcp', 'udp', 'lan', 'lan_udp']

/** Whether it is on the network beside this machine, where no owner can be observed. */
export function isBeside({ kind }: Pick<Target, 'kind'>): boolean {
  return kind === 'lan' || kind === 'lan_udp'
}

/** The targets on this machine that somebody else has started and listens for. */
export function listenedFor(
  targets: ReadonlyMap<string, Target>,
): readonly (readonly [string, Dialled])[] {
  return [...targets].flatMap(([name, target]) =>
    target.kind === 'spawn' || isBeside(target) ? [] : [[name, target] as const],
  )
}

/** Where, and by what, it is reached. */
export function reachedAt({ kind, endpoint: end }: Dialled): Endpoint & Reached {
  return kind === 'udp' || kind === 'lan_udp' ? { ...end, transport: 'udp' } : end
}

/** One target of agent.json. Throws AgentError `config.invalid` with the place of the mistake. */
export function targetOf(at: At): Target {
  const { consent = false, ...value } = at.record()
  if (typeof consent !== 'boolean')
    throw at.inside('consent', consent).fail('true or false is expected')
  return { ...bodyOf(at, value), consent }
}

function bodyOf(at: At, value: Readonly<Record<string, unknown>>): Body {
  const [kind, ...more] = Object.keys(value)
  if (kind === 'spawn' && more.length === 0) return declarationOf(at.inside(kind, value[kind]))
  const dialled = DIALLED.find((known) => known === kind)
  if (dialled === undefined || more.length > 0) {
    throw at.fail(
      'exactly one of "tcp" and "udp" (on this machine), "lan" and "lan_udp" (beside it), and "spawn" (a program) is expected',
    )
  }
  return dialledOf(dialled, at.inside(dialled, value[dialled]))
}

function dialledOf(kind: DialledKind, at: At): Dialled {
  const end = endpointOf(at)
  if (isBeside({ kind }) && isLoopback(end.address)) {
    const here = kind === 'lan' ? 'tcp' : 'udp'
    throw at.fail(
      `a loopback address is on this machine: write "${here}", so that its owner is observed`,
    )
  }
  return { kind, endpoint: end }
}

function endpointOf(at: At): Endpoint {
  const match =
    typeof at.value === 'string' ? /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(at.value) : null
  const address = match?.[1] ?? match?.[2]
  if (address === undefined) throw at.fail('"address:port" is expected, IPv6 in brackets')
  const end = endpoint(address, Number(match?.[3]))
  // A name would be looked up by somebody else's rules at somebody else's time.
  if (end === undefined)
    throw at.fail('an IP address (not a name) and a port from 1 to 65535 are expected')
  if (isWildcard(end.address)) throw at.fail('the address to dial is expected, not the wildcard')
  return end
}

/**
 * One `NAME=KIND:ADDRESS:PORT` of the command line, as a key and a value of the file. Undefined where
 * it is none.
 */
export function readTarget(text: string): { name: string; value: object } | undefined {
  const [, name, kind, where] = /^([^=]*)=([a-z_]+):(.+)$/.exec(text) ?? []
  if (name === undefined || kind === undefined) return undefined
  if (!DIALLED.some((known) => known === kind)) return undefined
  return { name, value: { [kind]: where } }
}

/** The value of the file that `targetOf` reads. */
export function printTarget(target: Target): object {
  const consent = target.consent ? { consent: true } : {}
  if (target.kind === 'spawn') return { spawn: printDeclaration(target), ...consent }
  return { [target.kind]: printEndpoint(target.endpoint), ...consent }
}

/** Where it leads, for people. */
export function placeOf(target: Target): string {
  return target.kind === 'spawn' ? target.argv.join(' ') : printEndpoint(target.endpoint)
}
