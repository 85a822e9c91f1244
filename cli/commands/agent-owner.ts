/** `sallyport agent island|consent`: what the owner of a device says there, and no gateway can. */
import { userInfo } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { withAgent } from '../agent-room.ts'
import type { AgentRoom } from '../agent-room.ts'
import { CliError } from '../exit.ts'
import { layOut, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface DataOptions {
  readonly data: string
}

interface IslandOptions extends DataOptions {
  readonly reason?: string
}

/** Adds `island on|off|status`. */
export function addIslandCommands(agent: Command): void {
  const island = agent
    .command('island')
    .description('cut this device off from every gateway, until it is lifted here')
  island
    .command('on')
    .description('cut: sessions end, the tunnel closes, none is dialled, also after a restart')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .option('--reason <text>', 'kept on this device, for who finds it cut off')
    .action((options: IslandOptions, command: Command) => islandOn(options, command))
  island
    .command('off')
    .description('lift it: the agent dials again')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action((options: DataOptions, command: Command) => islandOff(options, command))
  island
    .command('status')
    .description('whether this device is cut off, since when and why')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action((options: DataOptions, command: Command) => islandStatus(options, command))
}

/** Adds `consent list|allow|deny`. */
export function addConsentCommands(agent: Command): void {
  const consent = agent
    .command('consent')
    .description('sessions that wait for a yes on this device')
  consent
    .command('list')
    .description('who waits, for what, and until when')
    .requiredOption('--data <dir>', 'the directory given to enroll')
    .action((options: DataOptions, command: Command) => consentList(options, command))
  for (const answer of ['allow', 'deny'] as const)
    consent
      .command(answer)
      .description(answer === 'allow' ? 'let a session in' : 'keep a session out')
      .argument('<session>', 'its id, as `list` shows it')
      .requiredOption('--data <dir>', 'the directory given to enroll')
      .action((session: string, options: DataOptions, command: Command) =>
        consentAnswer(session, answer, options, command),
      )
}

/** How long a running agent has to do what its owner says. */
const OBEDIENCE_MS = 15_000

/** Waits until the agent that runs, if one does, is cut off or no longer is. */
async function obeyed(room: AgentRoom, data: string, island: boolean): Promise<boolean> {
  for (const end = performance.now() + OBEDIENCE_MS; performance.now() < end;) {
    const found = room.readStatus(data)
    if (found?.alive !== true) return false
    if ((found.status.state === 'island') === island) return true
    await sleep(50)
  }
  throw new CliError(`The agent on ${data} runs and has not noticed.`, {
    code: 'agent.deaf',
    exit: 'failed',
    next: island
      ? 'The switch is set, and holds when the agent is started again: end that agent now.'
      : 'Start the agent again.',
  })
}

async function islandOn({ data, reason }: IslandOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    const { device } = room.readConfig(data)
    room.layIsland(data, reason, new Date().toISOString())
    const running = await obeyed(room, data, true)
    tell(globalOptions(command), { device, island: true, running }, [
      running
        ? `${device} is cut off: its sessions have ended, and its agent dials nobody.`
        : `${device} is cut off: no agent runs, and one that is started will dial nobody.`,
      `Lift it: sallyport agent island off --data ${data}`,
    ])
  })
}

async function islandOff({ data }: DataOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    const { device } = room.readConfig(data)
    room.liftIsland(data)
    const running = await obeyed(room, data, false)
    tell(globalOptions(command), { device, island: false, running }, [
      running
        ? `${device} is no longer cut off; its agent dials.`
        : `${device} is no longer cut off.`,
    ])
  })
}

async function islandStatus({ data }: DataOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    const { device } = room.readConfig(data)
    const note = room.readIsland(data)
    tell(globalOptions(command), { device, island: note !== undefined, ...note }, [
      note === undefined
        ? `${device} is not cut off`
        : `${device} is cut off since ${note.since ?? 'an unknown time'}: ${note.reason ?? 'no reason was given'}`,
    ])
  })
}

async function consentList({ data }: DataOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    room.readConfig(data)
    const questions = room.standingQuestions(data)
    const head = ['session', 'who', 'process', 'target', 'until'] as const
    const rows = questions.map(({ session, who, process, target, lapses_at: until }) => [
      session,
      who,
      process,
      target,
      until,
    ])
    tell(globalOptions(command), questions, [layOut({ head, rows, empty: 'nobody waits' })])
  })
}

async function consentAnswer(
  session: string,
  answer: 'allow' | 'deny',
  { data }: DataOptions,
  command: Command,
): Promise<void> {
  await withAgent(async (room) => {
    room.readConfig(data)
    const by = process.env['SUDO_USER'] ?? userInfo().username
    const { who, process: name } = room.answerQuestion(data, session, { answer, by })
    tell(globalOptions(command), { session, answer, by }, [
      `${who ?? 'the session'} is ${answer === 'allow' ? 'let in to' : 'kept out of'} ${name}.`,
    ])
  })
}
