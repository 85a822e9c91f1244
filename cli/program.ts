/** What `sallyport` and `sallyport-agent` have in common: the options before a command, and how a run ends. */
import { Command, CommanderError } from 'commander'
import { CliError, Exited, exits, Passed } from './exit.ts'
import { explain, note, say } from './print.ts'
import { VERSION } from './version.ts'
import { takeWay, wayOf } from './way.ts'

/** What every program of ours takes and says, with the commands that `rooms` add; nothing of it has run. */
export function program(name: string, rooms: readonly ((program: Command) => void)[]): Command {
  const made = new Command(name)
    .description(
      'Guarded way out for industrial devices: identity, tunnels, access for one process at a time.',
    )
    .version(VERSION, '--version', 'print the version')
    .option('--json', 'print results as JSON on stdout, and an error as JSON on stderr')
    .option('--profile <name>', 'which sign-in to use; several can be held', 'default')
    .option('--proxy <url>', 'go out through http://, https:// or socks5://HOST:PORT')
    .option('--proxy-auth-file <file>', 'file with "user:password" for that proxy')
    .option(
      '--proxy-ca-file <file>',
      'PEM of the authority that signs the certificate of an https proxy',
    )
    .option('--carrier <what>', 'tls (default), or websocket where only HTTPS may pass')
    .hook('preAction', (_program, command) =>
      takeWay(wayOf(command.optsWithGlobals(), process.env)),
    )
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => say(text.trimEnd()),
      writeErr: (text) => note(text.trimEnd()),
      outputError: (text, write) => write(text.replace(/^error: /, 'sallyport: ')),
    })
    .showHelpAfterError('  next  add --help to see what this command takes')
  for (const register of rooms) register(made)
  return made
}

/**
 * Runs one command line (`argv` as process.argv). Resolves with the exit code, of the table `exits`;
 * whatever went wrong has been printed.
 */
export async function run(command: Command, argv: readonly string[]): Promise<number> {
  const json = argv.includes('--json')
  try {
    await command.parseAsync([...argv])
    return exits.ok.code
  } catch (error) {
    // Commander has printed its own message, or the help that was asked for.
    if (error instanceof CommanderError)
      return error.exitCode === 0 ? exits.ok.code : exits.usage.code
    if (error instanceof Passed) return error.code
    if (error instanceof Exited) return exits[error.exit].code
    const told = error instanceof CliError ? error : foreign(error)
    note(explain(told, { json }))
    return exits[told.exit].code
  }
}

/** Codes that speak of a file or word that was given, like `config.…`. */
const GIVEN: ReadonlySet<string> = new Set([
  'ca.refused',
  'key.exposed',
  'key.mismatch',
  'key.passphrase',
  'key.unreadable',
  'key.unwritable',
  'policy.tree',
])

/** Another room's error, by its code; what has none is a fault of ours and shows where it was. */
function foreign(error: unknown): CliError {
  if (!(error instanceof Error))
    return new CliError(String(error), { code: 'internal', exit: 'failed' })
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  if (code === undefined)
    return new CliError(
      error.message,
      { code: 'internal', exit: 'failed', why: error.stack },
      { cause: error },
    )
  const exit = code.startsWith('config.') || GIVEN.has(code) ? 'usage' : 'failed'
  const next = 'next' in error && typeof error.next === 'string' ? error.next : undefined
  return new CliError(error.message, { code, exit, next }, { cause: error })
}
