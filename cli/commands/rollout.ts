/** `sallyport rollout`: updates of the agent, signed offline, given to devices zone by zone and share by share. */
import type { Command } from 'commander'
import type { SignFlags } from '../rollout-signing.ts'
import type { StartFlags } from '../rollout.ts'

export function registerRollout(program: Command): void {
  const rollout = program
    .command('rollout')
    .description('updates of the agent: sign one, and give it to devices share by share')
  registerSigning(rollout)
  registerGoing(rollout)
}

/** What a gateway is told. */
function registerGoing(rollout: Command): void {
  rollout
    .command('start <manifest>')
    .description('give an update to the devices of a zone, share by share')
    .requiredOption('--agent <file>', 'the agent in one file that the manifest names')
    .option('--zone <zone>', 'the devices of this zone')
    .option('--all-zones', 'or those of all zones')
    .option('--stages <shares>', 'per cent of the devices, rising', '5,25,100')
    .option(
      '--soak <duration>',
      'how long a share waits at least for the next; 0: not at all',
      '1h',
    )
    .option('--max-failures <number>', 'one more, and it pauses by itself', '0')
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(async (manifest: string, flags: StartFlags, command: Command) =>
      (await import('../rollout.ts')).start(manifest, flags, command),
    )
  rollout
    .command('status [rollout]')
    .description('how far rollouts are; of one: what became of each device')
    .action(async (id: string | undefined, flags: unknown, command: Command) =>
      (await import('../rollout.ts')).status(id, flags, command),
    )
  const acts = {
    pause: 'offer it to nobody until it is resumed; who waits to start it leaves it',
    resume: 'let a paused one go on',
    abort: 'end it; what has been updated stays so',
  } as const
  for (const act of ['pause', 'resume', 'abort'] as const)
    rollout
      .command(`${act} <rollout>`)
      .description(acts[act])
      .requiredOption('--reason <text>', 'why; it is logged')
      .action(async (id: string, flags: { reason: string }, command: Command) =>
        (await import('../rollout.ts')).change(act, id, flags, command),
      )
}

/** What needs the key, and no gateway. */
function registerSigning(rollout: Command): void {
  rollout
    .command('keygen')
    .description('make the key that signs updates; its private half stays off every gateway')
    .requiredOption('--out <file>', 'where the private key goes; nothing there is replaced')
    .option('--passphrase-file <file>', 'what seals it; else it is asked for')
    .option('--unsealed', 'leave the file as open as its mode, 0600')
    .action(async (flags: { out: string }, command: Command) =>
      (await import('../rollout-signing.ts')).keygen(flags, command),
    )
  rollout
    .command('sign <agent>')
    .description('sign an agent in one file as an update; it is run once, to say its version')
    .requiredOption('--key <file>', 'the private key that `rollout keygen` made')
    .requiredOption('--out <file>', 'where the manifest goes')
    .option('--for <duration>', 'how long it may be taken (30d)')
    .option('--from <version>', 'the oldest agent that may take it (any)')
    .option('--node <version>', 'the oldest Node that it runs on (26.10.0)')
    .option('--health <duration>', 'how soon after its start it must reach the gateway (5m)')
    .option('--passphrase-file <file>', 'what the key is sealed with; else it is asked for')
    .action(async (agent: string, flags: SignFlags, command: Command) =>
      (await import('../rollout-signing.ts')).sign(agent, flags, command),
    )
  rollout
    .command('verify <manifest>')
    .description('whether a key signed a manifest, and a file is what it names')
    .requiredOption('--key <word>', 'the public key: ed25519:…')
    .option('--bundle <file>', 'the agent in one file')
    .action(async (manifest: string, flags: { key: string }, command: Command) =>
      (await import('../rollout-signing.ts')).verify(manifest, flags, command),
    )
}
