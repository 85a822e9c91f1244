/** The agents on the two devices: enrolled by themselves, or given an identity that others enrolled. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DeviceToken } from '#api'
import { expect } from './failure.ts'
import type { GatewayNode } from './gateway-node.ts'
import type { Program } from './programs.ts'
import type { Stage } from './stage.ts'

export interface AgentFiles {
  readonly device: string
  /** Its data directory. */
  readonly directory: string
}

/** PEM texts of an identity that was not made by the agent. */
export interface ForeignPem {
  readonly key: string
  readonly certificate: string
  readonly authorities: string
  readonly root: string
}

/** What is behind each device, and where: the agent's own file says it, never the gateway. */
function targetOf(stage: Stage, device: string): readonly [name: string, address: string] {
  return device === 'press-07'
    ? ['plc', `127.0.0.1:${stage.ports.plc}`]
    : ['hmi', `127.0.0.1:${stage.ports.hmi}`]
}

/** Runs the line that `device add` printed, with the token in a file and the targets named. */
export async function enrolByAgent(stage: Stage, token: DeviceToken): Promise<AgentFiles> {
  const { device } = token
  const directory = stage.folder(device)
  const tokenFile = join(stage.folder('people'), `${device}.token`)
  writeFileSync(tokenFile, `${token.token}\n`, { mode: 0o600 })
  const [, ...line] = token.enrol_command.split(' ')
  const args = line.map((word) => ({ TOKEN_FILE: tokenFile, DIRECTORY: directory })[word] ?? word)
  const [name, address] = targetOf(stage, device)
  const outcome = await stage.sallyport.run('none', [...args, '--target', `${name}=tcp:${address}`])
  expect(outcome.code === 0, `${device} to enrol`, outcome.err || outcome.out)
  return { device, directory }
}

/** Lays key and certificate where the agent keeps its own (docs/agent.md): slot a, and the authorities. */
export async function adoptIdentity(
  stage: Stage,
  gateway: GatewayNode,
  device: string,
  pem: ForeignPem,
): Promise<AgentFiles> {
  const directory = stage.folder(device)
  const [name, address] = targetOf(stage, device)
  const config = {
    v: 1,
    gateway: stage.origin,
    device,
    ca_sha256: gateway.caSha256,
    targets: { [name]: { tcp: address } },
  }
  writeFileSync(join(directory, 'agent.json'), `${JSON.stringify(config, null, 2)}\n`, {
    mode: 0o600,
  })
  const slot = stage.folder(join(device, 'identity', 'a'))
  writeFileSync(join(slot, 'key.pem'), pem.key, { mode: 0o600 })
  const certificates = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g
  const authorities = pem.authorities.match(certificates) ?? []
  const issuing = authorities.filter((one) => one.trim() !== pem.root.trim())
  const leaf = pem.certificate.match(certificates)?.[0] ?? ''
  writeFileSync(join(slot, 'chain.pem'), [leaf, ...issuing].join(''))
  writeFileSync(
    join(directory, 'ca.pem'),
    [pem.root.match(certificates)?.[0] ?? pem.root, ...issuing].join(''),
  )
  return { device, directory }
}

/** Starts the agent and leaves it running. */
export function startAgent(stage: Stage, files: AgentFiles): Program {
  const start = stage.sallyport.start('none', ['agent', 'run', '--data', files.directory])
  return stage.programs.start({ ...start, name: `agent-${files.device}`, cwd: stage.directory })
}
