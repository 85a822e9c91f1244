/**
 * Programs written in Go, built once at a pinned version through the module proxy into a cache folder,
 * the way .ci/run builds the policy compiler. Where there is no Go, or the proxy has not got them, the
 * peer is absent.
 */
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { Absent } from './path.ts'
import { found } from './program.ts'

export interface GoModule {
  readonly name: string
  readonly module: string
  readonly version: string
  /** Paths below the module; '' is the module itself. */
  readonly commands: readonly string[]
}

const BUILD_MS = 300_000

/** The folder with the programs. Throws Absent. */
export async function built({ name, module, version, commands }: GoModule): Promise<string> {
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache')
  const folder = join(cache, 'sallyport', `${name}-${version}`)
  const programs = commands.map((command) =>
    join(folder, command === '' ? name : basename(command)),
  )
  if (programs.every((program) => existsSync(program))) return folder
  const go = found('go')
  if (go === undefined) throw new Absent('there is no Go to build it with')
  process.stderr.write(`  ${name} ${version} is built (once)\n`)
  // A module of its own: what its latest version is, or whether it is deprecated, is not asked for.
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-go-'))
  writeFileSync(
    join(directory, 'go.mod'),
    `module peers\n\ngo 1.23\n\nrequire ${module} v${version}\n`,
  )
  const paths = commands.map((command) => (command === '' ? module : `${module}/${command}`))
  try {
    await promisify(execFile)(go, ['install', ...paths], {
      cwd: directory,
      timeout: BUILD_MS,
      env: { ...process.env, GOBIN: folder, GOFLAGS: '-mod=mod', CGO_ENABLED: '0' },
    })
    return folder
  } catch (error) {
    const why = error instanceof Error ? (error.message.trim().split('\n').at(-1) ?? '') : ''
    throw new Absent(`it does not build here: ${why}`)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
