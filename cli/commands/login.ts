/** `sallyport login`, `logout`, `whoami`: a person at a terminal, known to one gateway per profile. */
import type { Command } from 'commander'
import type { Credentials, DevicePrompt, Trust } from '../login/index.ts'
import { CliError, usage } from '../exit.ts'
import { facts, note, say, tell } from '../print.ts'
import { globalOptions, type GlobalOptions } from './options.ts'

interface LoginFlags {
  readonly gateway?: string
  readonly caSha256?: string
  readonly again?: boolean
}

export function registerLogin(program: Command): void {
  program
    .command('login')
    .description(
      'sign in: prints an address and a code, and waits until you have approved it in a browser',
    )
    .option('--gateway <url>', 'address of the gateway; as last time where absent')
    .option('--ca-sha256 <hex>', 'fingerprint of its root; needed once per gateway')
    .option('--again', 'be asked who you are, even where the browser or your company still knows')
    .action(login)
  program
    .command('logout')
    .description('end the sign-in at the gateway and forget it here')
    .action(endLogin)
  program
    .command('whoami')
    .description('who the gateway takes you for')
    .action(async (_flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Me } = await import('../client.ts')
      const api = await openApi(options)
      const me = await api.call(Me, 'GET', '/me')
      tell(options, me, [
        ...facts([
          ['who', me.email ?? me.id],
          ['gateway', api.gateway.origin],
          ['party', me.party],
          ['company', me.vendor],
          ['roles', me.roles.join(' ')],
          ['groups', me.groups.join(' ')],
          ['signed in by', me.methods.join(' ')],
        ]),
      ])
    })
}

async function login(flags: LoginFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const [{ readGateway }, login, { profileDirectory }] = await Promise.all([
    import('../anchor.ts'),
    import('../login/index.ts'),
    import('../profile.ts'),
  ])
  const { deviceLogin, loadCredentials, prepareDirectory, saveCredentials } = login
  const directory = profileDirectory(options.profile)
  const given = flags.gateway === undefined ? undefined : readGateway(flags.gateway).origin
  // A login that cannot be read any more is no reason not to make a new one.
  const known = await loadCredentials(directory, given).catch(() => undefined)
  const gateway = given ?? known?.gateway
  if (gateway === undefined) throw usage('which gateway?', 'add --gateway URL and --ca-sha256 HEX')
  const trust = trustFrom(flags, known)
  await prepareDirectory(directory)
  const interrupt = new AbortController()
  process.once('SIGINT', () => interrupt.abort())
  const credentials = await deviceLogin({
    gateway,
    trust,
    onPrompt: (prompt) => show(prompt, options),
    signal: interrupt.signal,
    again: flags.again ?? false,
  })
  await saveCredentials(directory, credentials)
  tell(options, { signed_in: true, gateway, subject: credentials.subject }, [
    'signed in',
    'next: sallyport whoami',
  ])
}

function trustFrom(flags: LoginFlags, known: Credentials | undefined): Trust {
  if (flags.caSha256 !== undefined) return { pin: flags.caSha256 }
  if (known !== undefined) return { anchor: known.anchor }
  throw usage(
    'the first sign-in at a gateway needs the fingerprint of its root',
    'add --ca-sha256 HEX; whoever invited you has it, and the gateway keeps it in ca-root.sha256',
  )
}

function show(prompt: DevicePrompt, options: GlobalOptions): void {
  if (options.json) {
    say(
      JSON.stringify({
        user_code: prompt.code,
        verification_uri: prompt.url,
        verification_uri_complete: prompt.completeUrl,
        expires_in: prompt.expiresInSeconds,
      }),
    )
    return
  }
  say(`open    ${prompt.completeUrl}`)
  say(`compare ${prompt.code}`)
  note(`waiting for at most ${Math.round(prompt.expiresInSeconds / 60)} minutes; Ctrl-C to stop`)
}

async function endLogin(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const [{ loadCredentials, logout }, { profileDirectory }] = await Promise.all([
    import('../login/index.ts'),
    import('../profile.ts'),
  ])
  const directory = profileDirectory(options.profile)
  const credentials = await loadCredentials(directory)
  if (credentials === undefined)
    throw new CliError('nobody is signed in here', {
      code: 'login.none',
      exit: 'unauthenticated',
      next: 'sallyport login',
    })
  await logout(directory, credentials)
  tell(options, { signed_in: false, gateway: credentials.gateway }, [
    `signed out of ${credentials.gateway}`,
  ])
}
