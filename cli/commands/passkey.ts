/** `sallyport passkey …`, `step-up`: one's own second factor. */
import type { Command } from 'commander'
import { facts, instant, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerPasskey(program: Command): void {
  const passkey = program
    .command('passkey')
    .description('your passkeys: the second factor, and what signs your approvals')
  passkey
    .command('add <name>')
    .description('add one: prints a link, and waits until you have answered in a browser')
    .action(addPasskey)
  passkey.command('list').description('those you have').action(listPasskeys)
  passkey
    .command('remove <id>')
    .description('remove one; takes a passkey shown in the last five minutes')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Passkeys } = await import('../client.ts')
      const api = await openApi(options)
      const path = `/passkeys/${encodeURIComponent(id)}/remove`
      const { items } = await api.call(Passkeys, 'POST', path, {})
      tell(options, items, [`removed; ${items.length} left`])
    })
  program
    .command('step-up')
    .description(
      'show your passkey for the sign-in you have: policy then knows a fresh second factor',
    )
    .action(stepUp)
}

async function addPasskey(name: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const [{ all, openApi, Passkey }, { byPasskey }] = await Promise.all([
    import('../client.ts'),
    import('../passkey.ts'),
  ])
  const api = await openApi(options)
  const before = await all(api, Passkey, 'GET', '/passkeys')
  const known = new Set(before.map(({ id }) => id))
  const added = await byPasskey(api, options, '/passkeys', { name }, async () => {
    const items = await all(api, Passkey, 'GET', '/passkeys')
    return items.find(({ id }) => !known.has(id))
  })
  tell(options, added, [
    `passkey ${added.name} added`,
    ...facts([
      ['id', added.id],
      ['key', added.spki],
    ]),
    'next: signing in asks for it from now on, and `sallyport approve` signs with it',
  ])
}

async function listPasskeys(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Passkey: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/passkeys')
  show(options, items, {
    head: ['name', 'algorithm', 'synced', 'added', 'used', 'id'],
    rows: items.map((row) => [
      row.name,
      row.alg,
      row.synced,
      instant(row.created_at),
      instant(row.used_at),
      row.id,
    ]),
    empty: 'none; next: sallyport passkey add NAME',
  })
}

async function stepUp(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const [{ openApi, Me }, { byPasskey }] = await Promise.all([
    import('../client.ts'),
    import('../passkey.ts'),
  ])
  const api = await openApi(options)
  const asked = Math.floor(Date.now() / 1000)
  const before = await api.call(Me, 'GET', '/me')
  const me = await byPasskey(api, options, '/step-up', {}, async () => {
    const now = await api.call(Me, 'GET', '/me')
    const { authenticated_at: at, methods } = now
    const newer = at > before.authenticated_at || (at >= asked && at === before.authenticated_at)
    return newer && methods.includes('webauthn') ? now : undefined
  })
  tell(options, me, ['your passkey was accepted; go on where you were asked for it'])
}
