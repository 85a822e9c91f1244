/** `sallyport account`: people of the embedded identity provider. */
import type { Command } from 'commander'
import { readSecret } from '../input.ts'
import { facts, show, tell } from '../print.ts'
import { usage } from '../exit.ts'
import { collect, globalOptions } from './options.ts'

interface AddFlags {
  readonly email: string
  readonly name: string
  readonly party: string
  readonly vendor?: string
  readonly role?: string[]
  readonly group?: string[]
  readonly passwordFile?: string
}

export function registerAccount(program: Command): void {
  const account = program.command('account').description('people who may sign in here')
  account
    .command('add')
    .description('add a person; the password comes from a file, from stdin (-) or from a prompt')
    .requiredOption('--email <address>', 'what they sign in with')
    .requiredOption('--name <name>', 'what others read')
    .option('--party <party>', 'staff or vendor', 'staff')
    .option('--vendor <company>', 'the company of a vendor')
    .option(
      '--role <role>',
      'admin, engineer, operator, auditor or vendor; may be repeated',
      collect,
    )
    .option('--group <group>', 'a group that policy knows; may be repeated', collect)
    .option('--password-file <file>', 'file that holds the password')
    .action(addAccount)
  account
    .command('list')
    .description('who there is')
    .action(async (_flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Accounts } = await import('../client.ts')
      const { items } = await (await openApi(options)).call(Accounts, 'GET', '/accounts')
      show(options, items, {
        head: ['email', 'name', 'party', 'vendor', 'roles', 'groups', 'disabled'],
        rows: items.map((row) => [
          row.email,
          row.name,
          row.party,
          row.vendor,
          row.roles.join(' '),
          row.groups.join(' '),
          row.disabled,
        ]),
        empty: 'nobody yet',
      })
    })
}

async function addAccount(flags: AddFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  if (flags.party !== 'staff' && flags.party !== 'vendor')
    throw usage(
      `${JSON.stringify(flags.party)} is not a party`,
      'say --party staff or --party vendor',
    )
  const { openApi, Account } = await import('../client.ts')
  const api = await openApi(options)
  const password = await readSecret(flags.passwordFile, 'password')
  const added = await api.call(Account, 'POST', '/accounts', {
    email: flags.email,
    name: flags.name,
    party: flags.party,
    ...(flags.vendor === undefined ? {} : { vendor: flags.vendor }),
    roles: flags.role ?? (flags.party === 'vendor' ? ['vendor'] : []),
    ...(flags.group === undefined ? {} : { groups: flags.group }),
    password,
  })
  tell(options, added, [
    `${added.email} may sign in`,
    ...facts([
      ['name', added.name],
      ['party', added.party],
      ['vendor', added.vendor],
      ['roles', added.roles.join(' ')],
    ]),
  ])
}
