/** `sallyport agent`: the device's side. Everything it does is #agent's; here are the words for it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import type { AgentConfig, Status } from '#agent'
import { withAgent } from '../agent-room.ts'
import type { AgentRoom } from '../agent-room.ts'
import { Exited, usage } from '../exit.ts'
import { facts, layOut, note, plain, say, tell } from '../print.ts'
import { startedAs } from '../started.ts'
import { wayOut } from '../way.ts'
import { addConsentCommands, addIslandCommands } from './agent-owner.ts'
import { warnOfToken } from './agent-token.ts'
import { addSetupOptions, setupOf } from './agent-setup.ts'
import type { SetupFlags } from './agent-setup.ts'
import { addUpdateCommands } from './agent-update.ts'
import { collect, globalOptions } from './options.ts'

/** Where in its data directory an agent keeps the heads of the gateway's log; `audit witness --data` reads it. */
const WITNESS_FOLDER = 'witness'

interface EnrollOptions extends SetupFlags {
  readonly tokenFile?: string
  readonly data: string
  readonly approvers?: string
  readonly updateKey?: readonly string[]
}

interface DataOptions {
  readonly data: string
}

/** Adds `sallyport agent enroll|run|doctor|status|island|consent|update`. */
export function registerAgent(program: Command): void {
  addAgentCommands(
    program.command('agent').description('this machine as a device: enrol it, keep its tunnel'),
  )
}

/** The commands of an agent, under whatever they are called by. */
export function addAgentCommands(agent: Command): void {
  registerEnroll(agent)
  registerRunning(agent)
  registerApprovers(agent)
  addIslandCommands(agent)
  addConsentCommands(agent)
  addUpdateCommands(agent)
}

function registerEnroll(agent: Command): void {
  const enrolling = agent
    .command('enroll')
    .description('make this machine a device; run the same line again after any failure')
    .option(
      '--token-file <file>',
      'file with the one-time token; else the variable SALLYPORT_TOKEN',
    )
    .requiredOption('--data <dir>', 'where this device keeps its key, certificate and agent.json')
  addSetupOptions(enrolling)
    .option('--approvers <file>', 'people without whose signature nobody is let in: two keys')
    .option(
      '--update-key <word>',
      'key whose updates this device takes, ed25519:…; may be repeated',
      collect,
    )
    .action((options: EnrollOptions, command: Command) => enroll(options, command))
}

function registerRunning(agent: Command): void {
  agent
    .command('run')
    .description('dial the gateway and serve, until SIGTERM or SIGINT; logs to stderr')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action((options: DataOptions) => run(options))
  agent
    .command('doctor')
    .description('walk the way to the gateway and name the hop that is broken')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action((options: DataOptions, command: Command) => doctor(options, command))
  agent
    .command('status')
    .description('what the running agent says of itself')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action((options: DataOptions, command: Command) => status(options, command))
}

type Pinned = ReturnType<AgentRoom['pinApprovers']>

function readFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw usage(`${path} cannot be read: ${why}`)
  }
}

function pin(room: AgentRoom, config: AgentConfig, path: string): Pinned {
  room.makeData(config.dataDir)
  return room.pinApprovers(config, readFile(path), path)
}

function registerApprovers(agent: Command): void {
  const approvers = agent
    .command('approvers')
    .description('two keys: people without whose passkeys this device lets nobody in')
  const data = ['--data <dir>', 'the directory given to enroll'] as const
  approvers
    .command('show')
    .description('who is pinned')
    .requiredOption(...data)
    .action(async (options: DataOptions, command: Command) =>
      withAgent(async (room) => {
        const set = room.readApprovers(room.readConfig(options.data))
        tell(globalOptions(command), set ?? null, set === undefined ? NOBODY : setLines(set))
      }),
    )
  approvers
    .command('pin <file>')
    .description('pin the first set of approvers')
    .requiredOption(...data)
    .action(async (file: string, options: DataOptions, command: Command) =>
      withAgent(async (room) => {
        const set = pin(room, room.readConfig(options.data), file)
        const next = 'a running agent takes it at its next start: restart it now'
        tell(globalOptions(command), set, [...setLines(set), next])
      }),
    )
  approvers
    .command('rotate <file>')
    .description('replace the set by one that a quorum of the people in it signed')
    .requiredOption(...data)
    .requiredOption('--signature <file>', 'what an approver signed; may be repeated', collect)
    .action(
      async (file: string, options: DataOptions & { signature: string[] }, command: Command) =>
        withAgent(async (room) => {
          const config = room.readConfig(options.data)
          const given = options.signature.map((path) => signature(path))
          const set = room.rotateApprovers(config, readFile(file), file, given)
          tell(globalOptions(command), set, [...setLines(set), 'it holds from the next session on'])
        }),
    )
  addRemove(approvers)
}

function addRemove(approvers: Command): void {
  approvers
    .command('remove')
    .description('give up two keys on this device: the gateway decides alone again')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action(async (options: DataOptions, command: Command) =>
      withAgent(async (room) => {
        const removed = room.removeApprovers(room.readConfig(options.data))
        const next = 'a running agent lets nobody in until its next start: restart it now'
        tell(globalOptions(command), { removed }, removed ? [NOBODY[0], next] : NOBODY)
      }),
    )
}

function signature(path: string): unknown {
  const text = readFile(path)
  try {
    return JSON.parse(text)
  } catch {
    throw usage(`${path} is no signature`, 'it is what the page shows after `approvers sign`')
  }
}

const NOBODY = [
  'nobody: the gateway decides alone',
  'next: sallyport agent approvers pin FILE',
] as const

function setLines(set: Pinned): string[] {
  return facts([
    ['device', set.device],
    ['number', set.seq],
    ['people needed', set.quorum],
    ...set.approvers.map(({ person, key }) => ['approver', `${plain(person)} ${key.alg}`] as const),
    ['held to Modbus', set.modbus.join(' ')],
  ])
}

/** Aborts at the first signal of a service manager or a terminal; the second one ends the process as usual. */
function untilStopped(): AbortSignal {
  const stopping = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopping.abort())
  return stopping.signal
}

async function enroll(options: EnrollOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    const setup = setupOf(options)
    const config = room.configFrom(setup, options.data)
    const { approvers: path } = options
    const approvers = path === undefined ? undefined : { text: readFile(path), path }
    const token = room.readToken(options.tokenFile, process.env['SALLYPORT_TOKEN'])
    const { json } = globalOptions(command)
    warnOfToken(options.tokenFile, json, room.tokenExposure)
    const log = json ? () => {} : (_level: string, event: string) => note(`agent: ${event}`)
    const { leaf } = await room.enrolAgent(config, {
      token,
      approvers,
      updateKeys: options.updateKey,
      log,
      signal: untilStopped(),
    })
    const [serial, notAfter] = [leaf.serialNumber.toLowerCase(), leaf.validToDate.toISOString()]
    tell({ json }, { device: config.device, tenant: config.tenant, serial, not_after: notAfter }, [
      `${config.device} is enrolled; its certificate is good until ${notAfter} and renews itself.`,
      `Next: sallyport agent run --data ${options.data}`,
    ])
  })
}

async function run({ data }: DataOptions): Promise<void> {
  await withAgent(async (room) => {
    const log = room.lineLog((line) => process.stderr.write(line))
    const config = room.withWay(room.readConfig(data), wayOut())
    const onCut = (cut: () => void) => process.on('SIGUSR2', cut)
    const { HeadKeeper } = await import('#heads')
    const witness = new HeadKeeper(join(config.dataDir, WITNESS_FOLDER), () => Date.now())
    let again = false
    const onRestart = () => (again = true)
    const started = startedAs()
    await room.runAgent(config, { signal: untilStopped(), log, onCut, witness, started, onRestart })
    if (again) throw new Exited('restart')
  })
}

async function doctor({ data }: DataOptions, command: Command): Promise<void> {
  const findings = await withAgent((room) => room.examineAgent(data, untilStopped(), wayOut()))
  if (globalOptions(command).json) say(JSON.stringify(findings))
  else {
    const head = ['hop', 'verdict', 'found'] as const
    say(
      layOut({
        head,
        rows: findings.map(({ hop, verdict, says }) => [hop, verdict, says]),
        empty: '',
      }),
    )
    for (const { hop, next } of findings) if (next !== undefined) note(`${hop}: ${next}`)
  }
  if (findings.some(({ verdict }) => verdict === 'broken')) throw new Exited('failed')
}

async function status({ data }: DataOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    const { device } = room.readConfig(data)
    const found = room.readStatus(data)
    const running = found?.alive === true
    const told = found === undefined ? ['never ran here'] : lines(found.status, running)
    tell(globalOptions(command), { device, running, ...found?.status }, [
      `device  ${device}`,
      ...told,
    ])
    if (!running) throw new Exited('failed')
  })
}

function lines(status: Status, running: boolean): string[] {
  return facts([
    ['agent', running ? `runs as process ${status.pid}` : 'does not run'],
    [
      'tunnel',
      running
        ? `${status.state === 'island' ? 'none: cut off by the owner' : status.state} since ${status.since}`
        : 'none',
    ],
    ['gateway', status.gateway],
    ['key exchange', status.tls?.group],
    ['certificate', status.certificate?.serial],
    ['until', status.certificate?.not_after],
    ['processes not readable', status.unreadable],
    ['log of the gateway', status.log_conflict?.message ?? 'as before'],
    ['last error', status.last_error?.message],
  ])
}
