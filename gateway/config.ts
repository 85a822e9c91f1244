/**
 * What a node is told: one YAML file, then the environment, then the command line, checked before anything starts.
 * The only reader of the environment in this room. Secrets come as names of files.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { ConfigError } from './config/errors.ts'
import { readFile } from './config/file.ts'
import { checkMeaning } from './config/meaning.ts'
import { DEFAULTS, firstProblem, type Config } from './config/schema.ts'

export { ConfigError } from './config/errors.ts'
export { splitHostPort, type Config } from './config/schema.ts'

export interface ConfigSources {
  readonly file?: string | undefined
  /** What the command line says; wins over file and environment. */
  readonly overrides?: { readonly [K in keyof Config]?: Config[K] | undefined }
  readonly environment?: Readonly<Record<string, string | undefined>>
}

/**
 * Defaults, then the file, then `SALLYPORT_<KEY>`, then the overrides. Paths in the file are
 * relative to the file. Throws ConfigError `config.unreadable`, `config.syntax`, `config.value`.
 */
export function readConfig(sources: ConfigSources = {}): Config {
  const fromFile = sources.file === undefined ? {} : readFile(sources.file)
  const merged: Record<string, unknown> = { ...DEFAULTS, ...fromFile }
  const environment = sources.environment ?? process.env
  Object.assign(merged, fromEnvironment(environment))
  merged['ca'] = withCredential(merged['ca'], environment)
  for (const [key, value] of Object.entries(sources.overrides ?? {}))
    if (value !== undefined) merged[key] = value
  const problem = firstProblem(merged)
  if (problem !== undefined) throw new ConfigError('config.value', problem.path, problem.message)
  const config = merged as Config
  checkMeaning(config)
  return Object.freeze({ ...config, data: resolve(config.data) })
}

const TEXT_KEYS = [
  'tenant',
  'gateway',
  'data',
  'listen',
  'operations',
  'public_host',
  'apps_domain',
  'site',
  'timezone',
  'agent_files',
  'log_level',
] as const satisfies readonly (keyof Config)[]

function fromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Partial<Config> {
  const out: Record<string, unknown> = {}
  for (const key of TEXT_KEYS) {
    const value = environment[`SALLYPORT_${key.toUpperCase()}`]
    if (value !== undefined && value !== '') out[key] = value
  }
  const port = environment['SALLYPORT_PUBLIC_PORT']
  if (port !== undefined && port !== '') out['public_port'] = Number(port)
  return out
}

/** The passphrase file, where neither file nor variable names one: systemd's (LoadCredential=ca-passphrase:…). */
function withCredential(
  ca: unknown,
  environment: Readonly<Record<string, string | undefined>>,
): unknown {
  const given = typeof ca === 'object' && ca !== null ? ca : {}
  const credentials = environment['CREDENTIALS_DIRECTORY']
  const named = environment['SALLYPORT_CA_PASSPHRASE_FILE']
  if (named !== undefined && named !== '') return { ...given, passphrase_file: named }
  if (credentials === undefined || 'passphrase_file' in given) return given
  const path = resolve(credentials, 'ca-passphrase')
  return existsSync(path) ? { ...given, passphrase_file: path } : given
}
