/** `sallyport ssh`, `sallyport ssh-config`: the system's own ssh, carried to one process on one device. */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { CliError, Passed } from '../exit.ts'
import { readProcess } from '../input.ts'
import { tell } from '../print.ts'
import { proxyCommand, sshHost, stanza, type Carriage } from '../ssh.ts'
import { wayOut } from '../way.ts'
import { globalOptions, type GlobalOptions } from './options.ts'

export function registerSsh(program: Command): void {
  program
    .command('ssh <device/process> [arguments...]')
    .description('run ssh to a process; what stands behind -- is handed to ssh as it is')
    .option('--grant <id>', 'the grant to use, where several apply')
    .action(runSsh)
  program
    .command('ssh-config [device/process]')
    .description('print what belongs in ~/.ssh/config for one process, or for all of them')
    .action((place: string | undefined, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const target = place === undefined ? undefined : readProcess(place)
      const lines = stanza(carriage(options, undefined), options.profile, target)
      tell(options, { config: `${lines.join('\n')}\n` }, lines)
    })
}

/** Resolves never: ends with the exit code of ssh. Throws CliError `ssh.missing`. */
async function runSsh(
  place: string,
  rest: readonly string[],
  flags: { readonly grant?: string },
  command: Command,
): Promise<never> {
  const options = globalOptions(command)
  const target = readProcess(place)
  const host = sshHost(target, options.profile)
  const given = [
    `ProxyCommand=${proxyCommand(carriage(options, flags.grant), host)}`,
    `HostKeyAlias=${host}`,
  ].flatMap((option) => ['-o', option])
  // ssh takes options behind the host too, and what follows them is the command.
  const child = spawn('ssh', [...given, host, ...rest], { stdio: 'inherit' })
  const { promise, resolve: exited, reject } = Promise.withResolvers<number>()
  child.on('error', reject)
  child.on('exit', (code, signal) =>
    exited(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
  )
  // Ctrl-C reaches ssh from the terminal itself, and ssh says what becomes of it.
  const stay = (): void => {}
  const passOn = (signal: NodeJS.Signals): void => void child.kill(signal)
  process.on('SIGINT', stay).on('SIGTERM', passOn).on('SIGHUP', passOn)
  try {
    throw new Passed(await promise.catch(missing))
  } finally {
    process.off('SIGINT', stay).off('SIGTERM', passOn).off('SIGHUP', passOn)
  }
}

function missing(cause: unknown): never {
  throw new CliError(
    'ssh could not be started',
    {
      code: 'ssh.missing',
      exit: 'failed',
      why: cause instanceof Error ? cause.message : String(cause),
      next: 'install OpenSSH, or use sallyport connect --listen with another client',
    },
    { cause },
  )
}

/** This very program, by the same way out and under the same sign-in. */
function carriage({ profile }: GlobalOptions, grant: string | undefined): Carriage {
  const script = resolve(process.argv[1] ?? '')
  const { carrier, proxy, proxyAuthFile, proxyCaFile } = wayOut()
  const pairs = [
    ['--profile', profile === 'default' ? undefined : profile],
    ['--carrier', carrier],
    ['--proxy', proxy],
    ['--proxy-auth-file', proxyAuthFile],
    ['--proxy-ca-file', proxyCaFile],
  ] as const
  return {
    program: basename(script) === 'sallyport' ? [script] : [process.execPath, script],
    options: pairs.flatMap(([name, value]) => (value === undefined ? [] : [name, value])),
    grant,
  }
}
