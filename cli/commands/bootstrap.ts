/** `sallyport bootstrap`: the first administrator of a new gateway, once. */
import type { Command } from 'commander'
import { readSecret } from '../input.ts'
import { tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface BootstrapFlags {
  readonly gateway: string
  readonly caSha256: string
  readonly tokenFile?: string
  readonly email: string
  readonly name: string
  readonly passwordFile?: string
}

export function registerBootstrap(program: Command): void {
  program
    .command('bootstrap')
    .description(
      'make the first administrator, with the token that the gateway wrote at its first start',
    )
    .requiredOption('--gateway <url>', 'address of the gateway')
    .requiredOption(
      '--ca-sha256 <hex>',
      'fingerprint of its root; the gateway keeps it in ca-root.sha256',
    )
    .option('--token-file <file>', 'the file bootstrap-token of its data directory')
    .requiredOption('--email <address>', 'what the administrator signs in with')
    .requiredOption('--name <name>', 'what others read')
    .option('--password-file <file>', 'file that holds the password')
    .action(async (flags: BootstrapFlags, command: Command) => {
      const [{ readGateway }, { openAnonymous, Account }] = await Promise.all([
        import('../anchor.ts'),
        import('../client.ts'),
      ])
      const token = await readSecret(flags.tokenFile, 'token')
      const password = await readSecret(flags.passwordFile, 'password')
      const api = await openAnonymous(readGateway(flags.gateway), flags.caSha256)
      const { email, name } = flags
      const account = await api.call(Account, 'POST', '/bootstrap', {
        token,
        email,
        name,
        password,
      })
      tell(globalOptions(command), account, [
        `${account.email} is the administrator`,
        `next: sallyport login --gateway ${flags.gateway} --ca-sha256 ${flags.caSha256}`,
      ])
    })
}
