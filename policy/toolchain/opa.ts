/**
 * Finds the one `opa` this release is built with: on PATH, in the cache, by `go install` through the
 * Go module proxy. The gateway never needs it. A pinned release download comes when releases pin one.
 */
import { execFile } from 'node:child_process'
import { access, constants, mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import lock from '../default/lock.json' with { type: 'json' }

const run = promisify(execFile)

export const OPA_VERSION: string = lock.opa
const MODULE = 'github.com/open-policy-agent/opa'

export interface Opa {
  readonly path: string
  readonly source: 'path' | 'cache' | 'go'
}

export interface Environment {
  /** Search path, as in the environment variable of that name. */
  readonly path: string
  /** Directory of the cache. */
  readonly cache: string
}

/** The environment of this process, as `resolveOpa` wants it. */
export function processEnvironment(): Environment {
  const cacheHome = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache')
  const goBin = process.env['GOBIN'] ?? join(process.env['GOPATH'] ?? join(homedir(), 'go'), 'bin')
  return {
    path: [process.env['PATH'] ?? '', goBin].join(delimiter),
    cache: join(cacheHome, 'sallyport', `opa-${OPA_VERSION}`),
  }
}

async function versionOf(path: string): Promise<string | undefined> {
  try {
    await access(path, constants.X_OK)
    const { stdout } = await run(path, ['version'], { timeout: 20_000 })
    return /^Version: (\S+)/m.exec(stdout)?.[1]
  } catch {
    return undefined
  }
}

/** An `opa` of the pinned version that is already here, or nothing. */
export async function findOpa(environment: Environment): Promise<Opa | undefined> {
  for (const directory of environment.path.split(delimiter).filter((part) => part !== '')) {
    const path = join(directory, 'opa')
    if ((await versionOf(path)) === OPA_VERSION) return { path, source: 'path' }
  }
  const cached = join(environment.cache, 'opa')
  return (await versionOf(cached)) === OPA_VERSION ? { path: cached, source: 'cache' } : undefined
}

/**
 * An `opa` of the pinned version, installed with Go if need be.
 * Errors: a plain Error that says how to get it.
 */
export async function resolveOpa(environment: Environment): Promise<Opa> {
  const found = await findOpa(environment)
  if (found !== undefined) return found
  try {
    await mkdir(environment.cache, { recursive: true })
    const env = { ...process.env, CGO_ENABLED: '0', GOBIN: environment.cache }
    await run('go', ['install', `${MODULE}@v${OPA_VERSION}`], { env, timeout: 900_000 })
  } catch (error) {
    throw new Error(
      `opa ${OPA_VERSION} is needed to compile policies and was not found on PATH or in ${environment.cache}.\n` +
        `Next step: install Go 1.26 or newer and run \`CGO_ENABLED=0 go install ${MODULE}@v${OPA_VERSION}\`, ` +
        'or put that release of opa on PATH.',
      { cause: error },
    )
  }
  const path = join(environment.cache, 'opa')
  if ((await versionOf(path)) !== OPA_VERSION) throw new Error(`${path} is not opa ${OPA_VERSION}`)
  return { path, source: 'go' }
}
