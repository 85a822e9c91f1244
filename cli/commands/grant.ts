/** `sallyport request … done`: asking for a window of time at one process, deciding on it, ending it. */
import type { Command } from 'commander'
import type { Approval, EndedGrant, Grant } from '#api'
import { CliError, usage } from '../exit.ts'
import { grantFacts, grantId, nextApproval } from '../grant.ts'
import {
  readAddresses,
  readDuration,
  readEvery,
  readInteger,
  readPlace,
  readSize,
} from '../input.ts'
import { instant, plain, say, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

interface RequestFlags {
  readonly for?: string
  readonly every?: string
  readonly zone?: string
  readonly reason: string
  readonly ticket?: string
  readonly from?: string
  readonly until?: string
  readonly write?: true
  readonly addresses?: string
  readonly insteadOf?: string
  readonly uses?: string
  readonly bytes?: string
  readonly sealed?: string
}

export function registerGrant(program: Command): void {
  program
    .command('request <device/process[,process]>')
    .description('ask for access to processes of one device')
    .option('--for <duration>', 'how long, counted from the first use: 90s, 2m, 1h30m')
    .requiredOption('--reason <text>', 'why; approvers read it')
    .option('--ticket <ref>', 'the work order or ticket')
    .option(
      '--every <window>',
      'in these hours alone, each week: "Tue 02:00-04:00", "Mon,Thu 22:00-02:00"; until --until',
    )
    .option('--zone <zone>', 'where those hours are: Europe/Berlin')
    .option('--from <time>', 'not before this time (ISO 8601)')
    .option('--until <time>', 'not after this time (ISO 8601)')
    .option('--write', 'to write too, beside a grant to read that ends later; needs --addresses')
    .option(
      '--addresses <windows>',
      'the Modbus addresses alone: UNIT:FROM-TO or UNIT:ADDRESS, several with commas',
    )
    .option('--instead-of <grant>', 'a grant of yours that ends when this one is approved')
    .option(
      '--sealed <n>',
      'for emergencies: it opens nothing until so many people break its seal, 2 to 8',
    )
    .option('--uses <n>', 'for so many sessions and no more, 1 to 1000')
    .option('--bytes <size>', 'for so much in all sessions together, as 20M, both ways')
    .action(requestGrant)
  program
    .command('extend <grant>')
    .description(
      'ask for more time under a grant of yours; what is open goes on once it is approved',
    )
    .requiredOption('--for <duration>', 'by how much later it is to end: 30m, 2h')
    .requiredOption('--reason <text>', 'why; approvers read it')
    .option('--ticket <ref>', 'the work order or ticket, where it is another one')
    .action(extendGrant)
  program
    .command('grants')
    .description('grants: yours, or all if you may see them')
    .action(listGrants)
  registerDecisions(program)
}

function registerDecisions(program: Command): void {
  program
    .command('approve <grant>')
    .description('approve a grant as it stands, with your passkey if you have one')
    .option('--no-passkey', 'by the sign-in alone, where policy takes that')
    .action(approveGrant)
  program
    .command('reject <grant>')
    .description('refuse a grant that waits for approval')
    .requiredOption('--reason <text>', 'why; the requester reads it')
    .action(async (id: string, flags: { reason: string }, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Grant: schema } = await import('../client.ts')
      const api = await openApi(options)
      const grant = await api.call(schema, 'POST', `/grants/${grantId(id)}/reject`, flags)
      tell(options, grant, [`${grant.id} is ${grant.state}`])
    })
  program
    .command('revoke <grant>')
    .description('end a grant and cut its sessions')
    .requiredOption('--reason <text>', 'why; it is logged and told to the vendor')
    .action(async (id: string, flags: { reason: string }, command: Command) => {
      const options = globalOptions(command)
      const { openApi, EndedGrant: schema } = await import('../client.ts')
      const api = await openApi(options)
      const ended = await api.call(schema, 'POST', `/grants/${grantId(id)}/revoke`, flags)
      tell(options, ended, endedLines(ended))
    })
  program
    .command('done <grant>')
    .description('end your own grant: the work is finished')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, EndedGrant: schema } = await import('../client.ts')
      const api = await openApi(options)
      const ended = await api.call(schema, 'POST', `/grants/${grantId(id)}/done`)
      tell(options, ended, endedLines(ended))
    })
}

function readTime(text: string): number {
  const at = Date.parse(text)
  if (Number.isNaN(at))
    throw usage(`${JSON.stringify(text)} is not a time`, 'write it as 2027-03-01T06:00:00Z')
  return Math.floor(at / 1000)
}

async function requestGrant(place: string, flags: RequestFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { device, processes } = readPlace(place)
  if (flags.write === true && flags.addresses === undefined)
    throw usage('--write needs --addresses', 'name what will be written, as in --addresses 1:0-9')
  const body = {
    device,
    processes,
    ...timesOf(flags),
    reason: flags.reason,
    ...(flags.ticket === undefined ? {} : { ticket: flags.ticket }),
    ...(flags.uses === undefined ? {} : { max_uses: readInteger(flags.uses, 'uses', 1, 1000) }),
    ...(flags.bytes === undefined ? {} : { max_bytes: readSize(flags.bytes) }),
    ...(flags.insteadOf === undefined ? {} : { supersedes: grantId(flags.insteadOf) }),
    ...(flags.sealed === undefined
      ? {}
      : { sealed: { quorum: readInteger(flags.sealed, 'sealed', 2, 8) } }),
    ...(flags.write === undefined ? {} : { ot_level: 2 }),
    ...(flags.addresses === undefined ? {} : { ot_windows: readAddresses(flags.addresses) }),
  }
  const { openApi, Grant: schema } = await import('../client.ts')
  const grant = await (await openApi(options)).call(schema, 'POST', '/grants', body)
  const waiting = grant.approvals_needed - grant.approvals.length
  tell(options, grant, [
    `${grant.id} is ${grant.state}`,
    ...(await grantFacts(grant)),
    ...(grant.ot_level === 2
      ? [
          'once approved: a new connection of your session may write; the session ends with this grant',
        ]
      : []),
    ...(typeof grant.sealed === 'number'
      ? [`in an emergency: sallyport break-glass open ${grant.id} --reason …`]
      : []),
    waiting > 0
      ? `next: ${nextApproval(grant)}`
      : `next: sallyport connect ${device}/${processes[0]} --listen 127.0.0.1:1502`,
  ])
}

/** When it may be used. Windows that come back do so until an end, and take no duration of their own. */
function timesOf(flags: RequestFlags) {
  const { every, zone } = flags
  const not_before = flags.from === undefined ? undefined : readTime(flags.from)
  const not_after = flags.until === undefined ? undefined : readTime(flags.until)
  const window = {
    ...(not_before === undefined ? {} : { not_before }),
    ...(not_after === undefined ? {} : { not_after }),
  }
  if (every === undefined) {
    if (flags.for === undefined)
      throw usage('how long is not said', 'add --for 2m, or --every "Tue 02:00-04:00"')
    if (zone !== undefined) throw usage('--zone is for --every', 'leave it out')
    return { duration_s: readDuration(flags.for), ...window }
  }
  if (zone === undefined)
    throw usage('hours are those of a place', 'name its zone: --zone Europe/Berlin')
  if (not_after === undefined)
    throw usage('what comes back ends on a day', 'add --until 2027-03-01T00:00:00Z')
  const whole = not_after - (not_before ?? Math.floor(Date.now() / 1000))
  if (whole < 1) throw usage('--until is not after --from', 'name a later time')
  const duration_s = flags.for === undefined ? whole : readDuration(flags.for)
  return { duration_s, ...window, recurring: { ...readEvery(every), tz: zone } }
}

async function extendGrant(
  id: string,
  flags: { readonly for: string; readonly reason: string; readonly ticket?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const body = {
    longer_s: readDuration(flags.for),
    reason: flags.reason,
    ...(flags.ticket === undefined ? {} : { ticket: flags.ticket }),
  }
  const { openApi, Grant: schema } = await import('../client.ts')
  const api = await openApi(options)
  const asked = await api.call(schema, 'POST', `/grants/${grantId(id)}/extension`, body)
  tell(options, asked, [
    `${asked.id} is ${asked.state}`,
    ...(await grantFacts(asked)),
    asked.state === 'requested'
      ? `next: ${nextApproval(asked)}; until then ${id} ends as before`
      : `${id} ends at ${instant(asked.not_after)} at the latest`,
  ])
}

async function listGrants(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Grant: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/grants')
  show(options, items, {
    head: ['grant', 'state', 'who', 'where', 'seconds', 'until', 'approvals', 'reason'],
    rows: items.map((row) => [
      row.id,
      row.state,
      row.requester_email ?? row.requester,
      `${row.device}/${row.processes.join(',')}`,
      row.duration_s,
      instant(row.expires_at),
      `${row.approvals.length}/${row.approvals_needed}`,
      row.reason,
    ]),
    empty: 'no grants; next: sallyport request DEVICE/PROCESS --for 2m --reason …',
  })
}

/** Reads the grant first and approves exactly that statement, by its hash; a passkey signs that hash. */
async function approveGrant(
  id: string,
  flags: { readonly passkey: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { openApi, all, Grant: schema, Me, Passkey } = await import('../client.ts')
  const api = await openApi(options)
  const path = `/grants/${grantId(id)}`
  const asked = await api.call(schema, 'GET', path)
  const done = async (grant: Grant) =>
    tell(options, grant, [`${grant.id} is ${grant.state}`, ...(await grantFacts(grant))])
  const items = flags.passkey ? await all(api, Passkey, 'GET', '/passkeys') : []
  if (items.length === 0)
    return await done(await api.call(schema, 'POST', `${path}/approve`, { hash: asked.hash }))
  if (!options.json) for (const line of await grantFacts(asked)) say(line)
  const { byPasskey } = await import('../passkey.ts')
  const { id: me } = await api.call(Me, 'GET', '/me')
  await done(
    await byPasskey(api, options, `${path}/approval`, {}, async () => {
      const grant = await api.call(schema, 'GET', path)
      if (hasNewOf(me, asked, grant)) return grant
      if (grant.state !== 'requested') throw waitsNoMore(grant)
      return undefined
    }),
  )
}

/** It was decided, or ended, while its approver looked for their passkey. */
function waitsNoMore({ id, state }: Grant): CliError {
  return new CliError(`${id} is ${state}; it waits for no approval`, {
    code: 'grant.state',
    exit: 'failed',
    next: `sallyport grant show ${id} says what became of it`,
  })
}

type Given = { readonly approvals: readonly Pick<Approval, 'by' | 'decision_id'>[] }

/** Whether `after` has an approval by `who` that `before` had not: another's, given meanwhile, is not one's own. */
export function hasNewOf(who: string, before: Given, after: Given): boolean {
  const known = new Set(before.approvals.map(({ decision_id: id }) => id))
  return after.approvals.some(({ by, decision_id: id }) => by === who && !known.has(id))
}

function endedLines(ended: EndedGrant): string[] {
  const { grant, cut } = ended
  const { connections = [] } = cut
  return [
    `${grant.id} is ${grant.state}${grant.ended === null ? '' : `: ${plain(grant.ended.reason)}`}`,
    ...cut.sessions.map(({ id, time_to_cut_ms }) => `cut ${id} in ${time_to_cut_ms.toFixed(1)} ms`),
    ...connections.map(
      ({ session, time_to_cut_ms }) =>
        `cut a connection of ${session} that might write, in ${time_to_cut_ms.toFixed(1)} ms`,
    ),
    ...(cut.sessions.length + connections.length === 0 ? ['no session was open under it'] : []),
  ]
}
