/**
 * Running a node from arguments, or only making its data directory. The node itself is loaded when one
 * is wanted: commands on the CA or the log come through the same door.
 */
import { readConfig, type Config } from './config.ts'
import type { Addresses } from './gateway.ts'

export interface GatewayArguments {
  readonly configFile?: string | undefined
  readonly dataDirectory?: string | undefined
  readonly listen?: string | undefined
  readonly operations?: string | undefined
  readonly publicHost?: string | undefined
}

/** The configuration that these arguments name. Throws ConfigError. */
export function toConfig(given: GatewayArguments): Config {
  return readConfig({
    file: given.configFile,
    overrides: {
      data: given.dataDirectory,
      listen: given.listen,
      operations: given.operations,
      public_host: given.publicHost,
    },
  })
}

/** Runs a complete node until `signal` aborts. Rejects with what keeps it from starting. */
export async function runGateway(
  given: GatewayArguments,
  options: { readonly signal: AbortSignal; readonly ready?: (addresses: Addresses) => void },
): Promise<void> {
  const { serve } = await import('./gateway.ts')
  await serve(toConfig(given), options.signal, options.ready ?? (() => {}))
}

export interface Initialised {
  readonly data: string
  readonly caSha256: string
  readonly logKeys: readonly string[]
  /** The file with the first administrator's one-time token; null once it was used. */
  readonly bootstrapFile: string | null
}

/** Makes or opens the data directory and closes it again; nothing listens. */
export async function initGateway(given: GatewayArguments): Promise<Initialised> {
  const config = toConfig(given)
  const { openFoundation } = await import('./foundation.ts')
  await using foundation = await openFoundation(config)
  return {
    data: config.data,
    caSha256: foundation.authority.rootSha256,
    logKeys: foundation.log.vkeys,
    bootstrapFile: foundation.identity.bootstrapFile,
  }
}
