/** `sallyport-agent install|uninstall`: this machine as a device that starts by itself. The work is #agent's. */
import { readFileSync, realpathSync } from 'node:fs'
import { isSea } from 'node:sea'
import type { Command } from 'commander'
import { withAgent } from '../agent-room.ts'
import { usage } from '../exit.ts'
import { instant, note, tell } from '../print.ts'
import { addSetupOptions, setupOf } from './agent-setup.ts'
import type { SetupFlags } from './agent-setup.ts'
import { warnOfToken } from './agent-token.ts'
import { collect, globalOptions } from './options.ts'

interface InstallFlags extends SetupFlags {
  readonly tokenStdin?: true
  readonly tokenFile?: string
  readonly data?: string
  readonly approvers?: string
  readonly updateKey?: readonly string[]
  readonly level?: string
  readonly root: string
}

interface UninstallFlags {
  readonly data?: string
  readonly root: string
  readonly purge?: true
}

/** Adds both; they are the single file's, because it is that file which is installed. */
export function addInstallCommands(agent: Command): void {
  const installing = agent
    .command('install')
    .description('enrol this machine and keep its tunnel as a service; run again after any failure')
    .option('--token-stdin', 'the one-time token comes on standard input')
    .option('--token-file <file>', 'or in this file; else in the variable SALLYPORT_TOKEN')
    .option('--data <dir>', 'where the device keeps its key (new: /var/lib/sallyport)')
  addSetupOptions(installing)
    .option('--approvers <file>', 'people without whose signature nobody is let in: two keys')
    .option(
      '--update-key <word>',
      'key whose updates this device takes, ed25519:…; may be repeated',
      collect,
    )
    .option('--level <number>', 'what it sees of processes: 2 (new), or 0 with no capability')
    .option('--root <dir>', 'put everything below DIR, an image; nothing is started', '/')
    .action((flags: InstallFlags, command: Command) => install(flags, command))
  agent
    .command('uninstall')
    .description('stop the service and take it away; the data stays unless --purge')
    .option('--data <dir>', "where the device's key is, once the unit that says so is gone")
    .option('--purge', "remove the device's key and certificate too")
    .option('--root <dir>', 'the folder that was given to install', '/')
    .action((flags: UninstallFlags, command: Command) => uninstall(flags, command))
}

async function install(flags: InstallFlags, command: Command): Promise<void> {
  const { json } = globalOptions(command)
  const { level, root } = flags
  if (level !== undefined && level !== '0' && level !== '2')
    throw usage(`there is no level ${level} to run at`, 'see docs/process-scope.md: 0 or 2')
  await withAgent(async (room) => {
    if (flags.tokenStdin !== true) warnOfToken(flags.tokenFile, json, room.tokenExposure)
    const installed = await room.installAgent({
      setup: setupOf(flags),
      token: tokenOf(flags, room.readToken),
      dataDir: flags.data,
      level: level === undefined ? undefined : level === '2' ? 2 : 0,
      program: ownProgram(),
      root,
      approvers: approversOf(flags.approvers),
      updateKeys: flags.updateKey,
      signal: untilInterrupted(),
      log: () => {},
      did: (what) => note(`- ${what}`),
    })
    const { device, serial, notAfter, gateway, capabilities } = installed
    const until = instant(Math.floor(Date.parse(notAfter) / 1000))
    tell({ json }, { device, serial, not_after: notAfter, gateway, capabilities }, [
      gateway === null
        ? `${device} is enrolled below ${root}; the service starts with the image`
        : `${device} is connected to ${gateway}`,
      `certificate ${serial}, until ${until}; it renews itself`,
      `capabilities of the service: ${capabilities.length === 0 ? 'none' : capabilities.join(' ')}`,
      'take it away again: sallyport-agent uninstall',
    ])
  })
}

/** What became of the data. */
const SAYS = {
  purged: (path: string) => `the device's key is gone, with all of ${path}`,
  kept: (path: string) => `the device's key stays in ${path}`,
  none: (path: string) => `there was no device's key in ${path}`,
}

async function uninstall(flags: UninstallFlags, command: Command): Promise<void> {
  const { json } = globalOptions(command)
  const purge = flags.purge === true
  await withAgent(async (room) => {
    const did = (what: string) => note(`- ${what}`)
    const { root, data: dataDir } = flags
    const done = await room.uninstallAgent({ root, dataDir, purge, did })
    const facts = { purged: done.data === 'purged', data: done.data, data_dir: done.dataDir }
    tell({ json }, { uninstalled: true, ...facts }, [
      'nothing of the agent runs here any more',
      SAYS[done.data](done.dataDir),
      'the gateway still knows the device: sallyport device decommission ID --reason TEXT',
    ])
  })
}

/** Undefined where none was given: a device that has its certificate needs none. */
function tokenOf(
  { tokenStdin, tokenFile }: InstallFlags,
  readToken: (file: string | undefined, variable: string | undefined) => string,
): string | undefined {
  if (tokenStdin === true) return readToken(undefined, readFileSync(0, 'utf8'))
  const variable = process.env['SALLYPORT_TOKEN']
  return tokenFile === undefined && (variable === undefined || variable === '')
    ? undefined
    : readToken(tokenFile, variable)
}

/** The single file that this is. */
function ownProgram(): { file: string; node: string | undefined } {
  if (isSea()) return { file: process.execPath, node: undefined }
  const file = realpathSync(process.argv[1] ?? '')
  if (file.endsWith('.cjs')) return { file, node: realpathSync(process.execPath) }
  throw usage(
    'only the agent in one file can be installed, and this is its source',
    'npm run build:agent, then: node dist/agent/sallyport-agent.cjs install …',
  )
}

function approversOf(path: string | undefined): { text: string; path: string } | undefined {
  if (path === undefined) return undefined
  try {
    return { text: readFileSync(path, 'utf8'), path }
  } catch (error) {
    throw usage(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function untilInterrupted(): AbortSignal {
  const stopping = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopping.abort())
  return stopping.signal
}
