/** `sallyport account invite …`: guests, and owners of an account, who come in by a link. */
import type { Command } from 'commander'
import type { Account, MadeInvitation } from '#api'
import type { Api } from '../client.ts'
import { usage } from '../exit.ts'
import { readDuration } from '../input.ts'
import { facts, instant, note, plain, show, tell } from '../print.ts'
import { collect, globalOptions, type GlobalOptions } from './options.ts'

interface InviteFlags {
  readonly name: string
  readonly vendor: string
  readonly email?: string
  readonly group?: string[]
  readonly for?: string
}

/** `find`: the account of an address. */
export function registerInvitations(
  account: Command,
  find: (api: Api, email: string) => Promise<Account>,
): void {
  account
    .command('invite')
    .description('invite a guest: prints a link, good once, by which they choose how to sign in')
    .requiredOption('--name <name>', 'what others read')
    .requiredOption('--vendor <company>', 'their company')
    .option('--email <address>', 'what they sign in with; made of the name where absent')
    .option('--group <group>', 'a group that policy knows; may be repeated', collect)
    .option('--for <duration>', 'how long the link stands: 10m to 720h; 72h where absent')
    .action(invite)
  account
    .command('renew <email>')
    .description(
      'for who lost passkey or password: prints a link, good once, by which they choose anew; the old ones end then',
    )
    .option('--for <duration>', 'how long the link stands: 10m to 720h; 72h where absent')
    .action(async (email: string, flags: { for?: string }, command: Command) => {
      const options = globalOptions(command)
      const { openApi, MadeInvitation } = await import('../client.ts')
      const api = await openApi(options)
      const { sub } = await find(api, email)
      const made = await api.call(MadeInvitation, 'POST', `/accounts/${sub}/renew`, stands(flags))
      await tellLink(api, options, made)
    })
  account
    .command('invitations')
    .description('who was invited, by whom, and what became of it')
    .action(listInvitations)
  account
    .command('uninvite <invitation>')
    .description('withdraw an invitation: its link opens nothing any more')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      if (!/^i_[0-9a-z]{26}$/.test(id))
        throw usage(
          `${JSON.stringify(id)} is not the id of an invitation`,
          'ids look like i_… and stand in `sallyport account invitations`',
        )
      const { openApi, Invitation } = await import('../client.ts')
      const api = await openApi(options)
      const revoked = await api.call(Invitation, 'POST', `/invitations/${id}/revoke`, {})
      tell(options, revoked, [`the invitation of ${plain(revoked.email)} opens nothing any more`])
    })
}

async function invite(flags: InviteFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { name, vendor, email, group } = flags
  const { openApi, MadeInvitation } = await import('../client.ts')
  const api = await openApi(options)
  const made = await api.call(MadeInvitation, 'POST', '/invitations', {
    name,
    vendor,
    ...(email === undefined ? {} : { email }),
    ...(group === undefined ? {} : { groups: group }),
    ...stands(flags),
  })
  await tellLink(api, options, made)
}

const stands = (flags: { readonly for?: string }): { readonly stands_s?: number } =>
  flags.for === undefined ? {} : { stands_s: readDuration(flags.for) }

/** What the administrator sends on, and how they take it back. */
async function tellLink(api: Api, options: GlobalOptions, made: MadeInvitation): Promise<void> {
  const login = await loginLine(api)
  const { invitation, url } = made
  if (!options.json)
    note('send them these lines, by a way that nobody else reads; the link is shown this once:')
  tell(options, { ...made, login }, [
    ...facts([
      ['open', url],
      ['you are', invitation.email],
      ['good until', instant(invitation.expires_at)],
      ['then run', login],
    ]),
  ])
  if (!options.json) note(`to withdraw it: sallyport account uninvite ${invitation.id}`)
}

/** What the guest runs next: with the fingerprint, so that no browser need be believed. */
async function loginLine(api: Api): Promise<string> {
  const { Info } = await import('../client.ts')
  const { issuer, ca_sha256: pin } = await api.call(Info, 'GET', '/info')
  return `sallyport login --gateway ${new URL(issuer).origin} --ca-sha256 ${pin}`
}

async function listInvitations(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Invitation: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/invitations')
  show(options, items, {
    head: [
      'invitation',
      'for',
      'state',
      'email',
      'name',
      'vendor',
      'groups',
      'good until',
      'closed',
    ],
    rows: items.map((row) => [
      row.id,
      row.renews ? 'renewal' : 'guest',
      row.state,
      row.email,
      row.name,
      row.vendor,
      row.groups.join(' '),
      instant(row.expires_at),
      instant(row.closed_at),
    ]),
    empty: 'nobody was invited; next: sallyport account invite --name NAME --vendor COMPANY',
  })
}
