/** `sallyport agent update`: whose updates this device takes, and which agent it starts; said here, and by no gateway. */
import type { Command } from 'commander'
import { withAgent } from '../agent-room.ts'
import { facts, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface DataOptions {
  readonly data: string
}

const DATA = ['--data <dir>', 'the directory given to enroll'] as const

/** Adds `update show|pin|unpin`. */
export function addUpdateCommands(agent: Command): void {
  const update = agent.command('update').description('whose updates this device takes')
  update
    .command('show')
    .description('which keys are pinned, and which agent starts')
    .requiredOption(...DATA)
    .action((options: DataOptions, command: Command) => show(options, command))
  update
    .command('pin <key...>')
    .description('take updates that one of these keys signed: ed25519:…')
    .requiredOption(...DATA)
    .action(async (words: string[], { data }: DataOptions, command: Command) =>
      withAgent(async (room) => {
        room.makeData(room.readConfig(data).dataDir)
        const keys = room.pinUpdateKeys(data, words).map(({ id }) => id)
        tell(globalOptions(command), { keys }, [`updates signed by ${keys.join(', ')} are taken`])
      }),
    )
  update
    .command('unpin')
    .description('take no update any more; the next start is the installed agent')
    .requiredOption(...DATA)
    .action(async ({ data }: DataOptions, command: Command) =>
      withAgent(async (room) => {
        room.unpinUpdateKeys(room.readConfig(data).dataDir)
        tell(globalOptions(command), { keys: [] }, [
          'this device takes no update any more; the installed agent runs from its next start on',
        ])
      }),
    )
}

async function show({ data }: DataOptions, command: Command): Promise<void> {
  await withAgent(async (room) => {
    const { keys, state } = room.readUpdates(room.readConfig(data).dataDir)
    const { current, previous, trial, floor, outcome } = state
    const words = keys.map(({ word }) => word)
    const told =
      outcome === null ? null : `${outcome.version} ${outcome.fault ?? 'runs'} (${outcome.rollout})`
    tell(globalOptions(command), { keys: words, current, previous, trial, floor, outcome }, [
      ...facts([
        ['keys', words.length === 0 ? 'none: no update is taken' : words.join(', ')],
        ['starts', current === null ? 'the installed agent' : current.version],
        ['on trial', trial?.version],
        ['none before', floor],
        ['to be told', told],
      ]),
    ])
  })
}
