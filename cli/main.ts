/**
 * The command `sallyport`: what it can do, and how it ends. Each command file declares its arguments
 * and loads the rooms it needs when it runs, so that `sallyport --help` costs nothing.
 */
import { Command, CommanderError } from 'commander'
import { registerAccount } from './commands/account.ts'
import { registerAgent } from './commands/agent.ts'
import { registerAudit } from './commands/audit.ts'
import { registerBootstrap } from './commands/bootstrap.ts'
import { registerCa } from './commands/ca.ts'
import { registerCaRevocation } from './commands/ca-revocation.ts'
import { registerConnect } from './commands/connect.ts'
import { registerDevice } from './commands/device.ts'
import { registerDoctor } from './commands/doctor.ts'
import { registerEst } from './commands/est.ts'
import { registerGateway } from './commands/gateway.ts'
import { registerGrant } from './commands/grant.ts'
import { registerIdp } from './commands/idp.ts'
import { registerLogin } from './commands/login.ts'
import { registerOpen } from './commands/open.ts'
import { registerPolicy } from './commands/policy.ts'
import { registerPolicyNode } from './commands/policy-node.ts'
import { registerProcess } from './commands/process.ts'
import { registerSession } from './commands/session.ts'
import { registerSsh } from './commands/ssh.ts'
import { CliError, Exited, exits, Passed } from './exit.ts'
import { explain, note, say } from './print.ts'
import { takeWay, wayOf } from './way.ts'

const rooms = [
  registerGateway,
  registerAgent,
  registerBootstrap,
  registerLogin,
  registerCa,
  registerAccount,
  registerIdp,
  registerDevice,
  registerCaRevocation,
  registerProcess,
  registerGrant,
  registerConnect,
  registerSsh,
  registerOpen,
  registerSession,
  registerAudit,
  registerPolicy,
  registerPolicyNode,
  registerEst,
  registerDoctor,
] as const

/** Every command with its arguments and help; nothing of it has run. */
export function buildProgram(): Command {
  const program = new Command('sallyport')
    .description(
      'Guarded way out for industrial devices: identity, tunnels, access for one process at a time.',
    )
    .version('0.1.0', '--version', 'print the version')
    .option('--json', 'print results as JSON on stdout, and an error as JSON on stderr')
    .option('--profile <name>', 'which sign-in to use; several can be held', 'default')
    .option('--proxy <url>', 'go out through http://HOST:PORT or socks5://HOST:PORT')
    .option('--proxy-auth-file <file>', 'file with "user:password" for that proxy')
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
  for (const register of rooms) register(program)
  return program
}

/**
 * Runs one command line (`argv` as process.argv). Resolves with the exit code, of the table `exits`;
 * whatever went wrong has been printed.
 */
export async function main(argv: readonly string[]): Promise<number> {
  const json = argv.includes('--json')
  try {
    await buildProgram().parseAsync([...argv])
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
