/**
 * The systemd unit of an agent: text out of what the agent has to be able to do. Knows no files. What each level
 * sees and needs: docs/process-scope.md; each line of the sandbox: docs/agent.md "As a service".
 */
import type { Target } from '../target.ts'
import { AgentError } from '../errors.ts'

/** The file name of the unit. */
export const UNIT = 'sallyport-agent.service'

/** How much of other users' processes the agent may see: docs/process-scope.md. */
export type Level = 0 | 2

/** Whose programs the agent starts: nobody's, its own user's, or other users'. */
export type Spawns = 'none' | 'own' | 'others'

export interface Service {
  /** The command and its first words; absolute. */
  readonly exec: readonly string[]
  readonly dataDir: string
  readonly user: string
  readonly level: Level
  readonly spawns: Spawns
}

const SEE = ['CAP_SYS_PTRACE', 'CAP_DAC_READ_SEARCH']
/** To start a program as somebody else: docs/process-scope.md "Spawned programs". */
const START = [
  'CAP_SYS_ADMIN',
  'CAP_SYS_CHROOT',
  'CAP_SETUID',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_CHOWN',
]

/** The capabilities that a service has and may ever get; no other one. */
export function capabilitiesOf({ level, spawns }: Pick<Service, 'level' | 'spawns'>): string[] {
  return [...(level === 2 ? SEE : []), ...(spawns === 'others' ? START : [])]
}

/** Whose programs `targets` start. `own`: names and number of the agent's user. */
export function spawnsOf(targets: Iterable<Target>, own: readonly string[]): Spawns {
  const users = [...targets].flatMap((target) => (target.kind === 'spawn' ? [target.user] : []))
  if (users.length === 0) return 'none'
  return users.every((user) => own.includes(String(user))) ? 'own' : 'others'
}

/** What holds for every agent, whatever its targets are. */
const ALWAYS = [
  'NoNewPrivileges=yes',
  'PrivateDevices=yes',
  // Read, not hidden: a program that a session is bound to may lie there, and its path has to lead to it.
  'ProtectHome=read-only',
  'ProtectClock=yes',
  'ProtectKernelModules=yes',
  'RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK',
  'RestrictRealtime=yes',
  'RestrictSUIDSGID=yes',
  'LockPersonality=yes',
  'SystemCallArchitectures=native',
  'SystemCallErrorNumber=EPERM',
]

/** For an agent that starts no programs: the whole file system but its data is read-only, no namespaces. */
const STRICT = [
  'ProtectSystem=strict',
  // These lay something over parts of /proc: STARTING must do without.
  'ProtectHostname=yes',
  'ProtectKernelLogs=yes',
  'ProtectKernelTunables=yes',
  'ProtectControlGroups=yes',
  'RestrictNamespaces=yes',
  'RemoveIPC=yes',
  'SystemCallFilter=@system-service',
  'SystemCallFilter=~@privileged @resources @keyring @memlock userfaultfd',
]

/**
 * A program lives in namespaces of its own with a /proc of its own, which the kernel refuses to a user who sees only a
 * part of /proc (mount_namespaces(7)); and it writes where its user may.
 */
const STARTING = [
  'ProtectSystem=full',
  'RestrictNamespaces=pid ipc mnt user',
  'SystemCallFilter=@system-service @mount',
]

/** The text of the unit. Throws AgentError `config.invalid` for a path that a unit could not hold as it is. */
export function printUnit(service: Service): string {
  const { exec, dataDir, user, spawns } = service
  for (const word of [...exec, dataDir]) assertPlain(word)
  const capabilities = capabilitiesOf(service).join(' ')
  return `${[
    '# Written by `sallyport-agent install`, which writes it anew; changes go into',
    `# ${UNIT}.d/*.conf.`,
    '[Unit]',
    'Description=Sallyport agent',
    'Wants=network-online.target',
    'After=network-online.target',
    'StartLimitIntervalSec=0',
    '',
    '[Service]',
    'Type=exec',
    `ExecStart=${[...exec, 'run', '--data', dataDir].join(' ')}`,
    `User=${user}`,
    `Group=${user}`,
    'Restart=always',
    'RestartSec=5',
    'UMask=0077',
    `ReadWritePaths=${dataDir}`,
    `AmbientCapabilities=${capabilities}`,
    `CapabilityBoundingSet=${capabilities}`,
    ...ALWAYS,
    ...(spawns === 'none' ? STRICT : STARTING),
    '',
    '[Install]',
    'WantedBy=multi-user.target',
  ].join('\n')}\n`
}

/** What a unit that `printUnit` wrote says of its service; undefined where somebody has written another one. */
export function readUnit(text: string): Pick<Service, 'dataDir' | 'level'> | undefined {
  const dataDir = /^ExecStart=.* run --data (\S+)$/m.exec(text)?.[1]
  const capabilities = /^AmbientCapabilities=(.*)$/m.exec(text)?.[1]?.split(' ')
  if (dataDir === undefined || capabilities === undefined) return undefined
  return { dataDir, level: SEE.every((one) => capabilities.includes(one)) ? 2 : 0 }
}

/** A blank, a quote, `%` or `$` mean something else in a unit: systemd.service(5), systemd.unit(5). */
function assertPlain(word: string): void {
  if (/^\/?[\w./+@:,=-]+$/.test(word)) return
  throw new AgentError(
    'config.invalid',
    `A service cannot be made of the path ${JSON.stringify(word)}.`,
    'Use a path of letters, digits and any of . _ + @ : , = - for program and data.',
  )
}
