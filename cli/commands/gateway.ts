/** `sallyport gateway`: runs a node, or prepares its data directory. */
import type { Command } from 'commander'
import { note, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface GatewayFlags {
  readonly data?: string
  readonly config?: string
  readonly listen?: string
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
    await initGateway(settings(flags))
    tell(globalOptions(command), { data: flags.data ?? null }, [
      'the data directory is ready',
      'next: sallyport gateway, then sallyport bootstrap with the token in bootstrap-token',
    ])
  })
}

function withFlags(command: Command): Command {
  return command
    .option('--data <dir>', 'data directory')
    .option('--config <file>', 'YAML configuration')
    .option('--listen <host:port>', 'address of the one public port')
    .option('--public-host <name>', 'name that people and devices dial')
}

function settings(flags: GatewayFlags): {
  dataDirectory: string | undefined
  configFile: string | undefined
  listen: string | undefined
  publicHost: string | undefined
} {
  return {
    dataDirectory: flags.data,
    configFile: flags.config,
    listen: flags.listen,
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
