/** `sallyport rollout start|status|pause|resume|abort`: what a gateway is told of updates, and what it answers. */
import type { Command } from 'commander'
import type { Rollout, RolloutDevice } from './client.ts'
import { globalOptions } from './commands/options.ts'
import { usage } from './exit.ts'
import { readBytes, readDuration, readInteger, readName, readText } from './input.ts'
import { facts, instant, layOut, plain, say, show, tell } from './print.ts'

export interface StartFlags {
  readonly agent: string
  readonly zone?: string
  readonly allZones?: true
  readonly stages: string
  readonly soak: string
  readonly maxFailures: string
  readonly reason: string
}

export async function start(path: string, flags: StartFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  if ((flags.zone === undefined) === (flags.allZones === undefined))
    throw usage('which devices?', 'give --zone ZONE, or --all-zones')
  const query = new URLSearchParams({
    manifest: readText(path, 'manifest'),
    ...(flags.zone === undefined ? {} : { zone: readName(flags.zone, 'zone') }),
    stages: readStages(flags.stages),
    soak_s: String(flags.soak === '0' ? 0 : readDuration(flags.soak)),
    max_failures: String(readInteger(flags.maxFailures, 'number of failures', 0, 10_000)),
    reason: flags.reason,
  })
  const bytes = readBytes(flags.agent, 'agent')
  const { openApi, Rollout: Answer } = await import('./client.ts')
  const api = await openApi(options)
  const body = { type: 'application/octet-stream', bytes }
  const rollout = await api.send(Answer, `/rollouts?${query.toString()}`, body)
  tell(options, rollout, [...about(rollout), `next: sallyport rollout status ${rollout.id}`])
}

/** Shares that rise, as the API takes them. Throws usage. */
function readStages(text: string): string {
  const shares = text.split(',').map((part) => readInteger(part.trim(), 'share', 1, 100))
  if (shares.some((share, nth) => share <= (shares[nth - 1] ?? 0)) || shares.length > 10)
    throw usage(`${JSON.stringify(text)} are no shares that rise`, 'write them as 5,25,100')
  return shares.join(',')
}

export async function status(
  id: string | undefined,
  _flags: unknown,
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Rollout: Item, RolloutDevice } = await import('./client.ts')
  const api = await openApi(options)
  if (id === undefined) {
    const items = await all(api, Item, 'GET', '/rollouts')
    show(options, items, {
      head: ['rollout', 'state', 'version', 'zone', 'share', 'since', 'reason'],
      rows: items.map((row) => [
        row.id,
        row.state,
        row.version,
        row.zone ?? 'all',
        `${row.percent} %`,
        instant(row.stage_at),
        row.reason,
      ]),
      empty: 'there is no rollout',
    })
    return
  }
  const path = `/rollouts/${idOf(id)}`
  const rollout = await api.call(Item, 'GET', path)
  const devices = await all(api, RolloutDevice, 'GET', `${path}/devices`)
  if (options.json) return say(JSON.stringify({ rollout, devices }))
  for (const line of [...about(rollout), ...unableLines(devices)]) say(line)
  say(
    layOut({
      head: ['device', 'state', 'code', 'counts as failure', 'installed', 'last heard'],
      rows: devices.map((row) => [
        row.name,
        row.state,
        row.code,
        row.failure,
        installedOf(row),
        instant(row.at),
      ]),
      empty: 'no device has had its turn yet',
    }),
  )
}

export async function change(
  act: 'pause' | 'resume' | 'abort',
  id: string,
  { reason }: { readonly reason: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Rollout: Answer } = await import('./client.ts')
  const path = `/rollouts/${idOf(id)}/${act}`
  const rollout = await (await openApi(options)).call(Answer, 'POST', path, { reason })
  const { version, state } = rollout
  tell(options, rollout, [`${rollout.id}, of ${version}, is ${state}: ${plain(rollout.reason)}`])
}

function idOf(id: string): string {
  if (/^o_[0-9a-z]{26}$/.test(id)) return id
  throw usage(
    `${JSON.stringify(id)} is not the id of a rollout`,
    'ids look like o_… and stand in `sallyport rollout status`',
  )
}

/** What is there: `file, Node 26.10.0`; null where the device does not say. */
function installedOf({ kind = null, node = null }: RolloutDevice): string | null {
  return kind === null ? null : `${kind}${node === null ? '' : `, Node ${node}`}`
}

/** Who takes no such update, and what becomes of a share of these alone. */
function unableLines(devices: readonly RolloutDevice[]): string[] {
  const unable = devices.filter(({ state, failure }) => state === 'refused' && !failure)
  if (unable.length === 0) return []
  const codes = [...new Set(unable.map(({ code }) => code ?? 'refused'))].join(', ')
  return [
    `devices that do not take it, and are not waited for: ${unable.length} (${codes}); where a share is these alone, another device goes in their place`,
  ]
}

function about(rollout: Rollout): string[] {
  const { percent, stages, soak_s, max_failures, not_after, zone } = rollout
  return facts([
    ['rollout', rollout.id],
    ['state', `${rollout.state}: ${rollout.reason}`],
    ['version', rollout.version],
    ['sha256', rollout.sha256],
    ['zone', zone ?? 'all'],
    ['share', `${percent} % of ${stages.join(', ')}, since ${instant(rollout.stage_at)}`],
    ['each at least', `${soak_s} s`],
    ['pauses after', `more than ${max_failures} failures`],
    ['taken until', instant(not_after)],
    ['begun', `${instant(rollout.at)} by ${rollout.by}`],
  ])
}
