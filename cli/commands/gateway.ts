/** `sallyport gateway`: runs a node, or prepares its data directory. */
import type { Command } from 'commander'
import type { GatewayArguments } from '#gateway'
import { facts, note, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface GatewayFlags {
  readonly data?: string
  readonly config?: string
  readonly listen?: string
  readonly operations?: string
  readonly publicHost?: string
}

export function registerGateway(program: Command): void {
  const gateway = program
    .command('gateway')
    .description(
      'run a gateway; without a config file, a complete single node from embedded defaults',
    )
  withFlags(gateway).action(async (flags: GatewayFlags) => {
    const { runGateway } = await import('#gateway')
    await runGateway(settings(flags), { signal: endOfProcess() })
  })
  const init = gateway.command('init').description('make keys, CA, store and first token, and stop')
  withFlags(init).action(async (_flags: GatewayFlags, command: Command) => {
    const { initGateway } = await import('#gateway')
    // The parent takes the same options; whichever side they were given on, they count.
    const flags: GatewayFlags = command.optsWithGlobals()
    const made = await initGateway(settings(flags))
    tell(globalOptions(command), made, [
      'the data directory is ready',
      ...facts([
        ['data', made.data],
        ['root SHA-256', made.caSha256],
        ['first token', made.bootstrapFile ?? 'used already'],
      ]),
      'next: sallyport gateway, then sallyport bootstrap --token-file with the file above',
      'then: take the root key of the CA off this machine: sallyport ca export-root --to FILE',
    ])
  })
}

function withFlags(command: Command): Command {
  return command
    .option('--data <dir>', 'data directory')
    .option('--config <file>', 'YAML configuration')
    .option('--listen <host:port>', 'address of the one public port')
    .option('--operations <host:port>', 'loopback address of health and metrics')
    .option('--public-host <name>', 'name that people and devices dial')
}

function settings(flags: GatewayFlags): GatewayArguments {
  return {
    configFile: flags.config,
    dataDirectory: flags.data,
    listen: flags.listen,
    operations: flags.operations,
    publicHost: flags.publicHost,
  }
}

/** Aborts at the first SIGINT or SIGTERM; a second one ends the process at once. */
function endOfProcess(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(1)
      note(`${signal}: ending; again to end at once`)
      controller.abort()
    })
  return controller.signal
}
