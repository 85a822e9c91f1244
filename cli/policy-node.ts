/** `sallyport policy status|push|activate|rollback|impact|try`: what is in force on a running gateway, and what is to be. */
import { statSync } from 'node:fs'
import type { Command } from 'commander'
import {
  BundleSourceHealth,
  openApi,
  PolicyActivated,
  PolicyImpact,
  PolicyStatus,
  PolicyTrial,
  type Api,
} from './client.ts'
import { CliError, usage } from './exit.ts'
import { readBytes, readInteger, readSince, readText } from './input.ts'
import { gatewaysLines } from './policy-gateways.ts'
import {
  activatedLines,
  cutsOf,
  impactLines,
  inForceLine,
  sourceLines,
  trialLines,
} from './policy-words.ts'
import { facts, instant, note, plain, tell } from './print.ts'
import { globalOptions } from './commands/options.ts'

const BUNDLE_TYPE = 'application/vnd.openpolicyagent.bundles'

export async function status(_flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  const now = await api.call(PolicyStatus, 'GET', '/policy')
  const lines = facts([
    ['state', now.state],
    ['revision', now.revision],
    ['seq', now.seq],
    ['bundle', now.bundle_digest],
    ['data', now.data_digest],
    ['from', now.source],
    ['since', instant(now.activated_at)],
    ['stale from', instant(now.stale_at)],
    ['highest seq', now.high_water],
    ['decisions', now.decisions],
    ['errors', now.errors],
    ['last good', now.last_good === null ? null : `seq ${now.last_good.seq}`],
    ['can go back', now.can_go_back],
    ['last change cut', cutsOf(now.last_cuts)],
    ['trusted keys', now.trusted_keys.join(', ')],
    [
      'decision log',
      `${now.journal.state}, ${now.journal.written} written since the start, ${now.journal.dropped} dropped`,
    ],
  ])
  lines.push(...sourceLines(now.bundle_source), ...gatewaysLines(now.gateways))
  for (const { broken } of now.journal.rings)
    if (broken !== null) lines.push(`the decision log is broken: ${broken}`)
  for (const { origin, code, detail } of now.boot_failures)
    lines.push(`at the start ${origin} was refused: ${code} ${detail}`)
  if (now.last_failure !== null)
    lines.push(`the last activation failed: ${now.last_failure.code} ${now.last_failure.detail}`)
  if (now.candidate !== null)
    lines.push(
      `waits since ${instant(now.candidate.at)}: ${now.candidate.digest}, from ${now.candidate.person}`,
      `next: sallyport policy activate ${now.candidate.digest}`,
    )
  tell(options, now, lines.map(plain))
}

/** Has the gateway look at its source now, also at what it refused. */
export async function look(_flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  note('looking …')
  const now = await api.call(BundleSourceHealth, 'POST', '/policy/source/look')
  tell(options, now, sourceLines(now).map(plain))
}

interface Sent {
  readonly since: string
  readonly permit?: string
}

async function send(
  api: Api,
  path: string,
  bundle: string,
  { since, permit }: Sent,
): Promise<PolicyImpact> {
  if (statSync(bundle, { throwIfNoEntry: false })?.isDirectory() === true)
    throw usage(`${bundle} is a folder`, `sallyport policy sign ${bundle} makes a bundle of it`)
  const bytes = readBytes(bundle, 'bundle')
  const query = new URLSearchParams({ since: String(readSince(since)) })
  if (permit !== undefined) query.set('permit', readText(permit, 'permit').trim())
  note('asking what it would do …')
  return api.send(PolicyImpact, `${path}?${query.toString()}`, { type: BUNDLE_TYPE, bytes })
}

export async function impact(bundle: string, flags: Sent, command: Command): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  const found = await send(api, '/policy/impact', bundle, flags)
  tell(options, found, impactLines(found))
}

export async function push(
  bundle: string,
  flags: Sent & { activate?: boolean; yes?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  if (flags.yes === true && flags.activate !== true)
    throw usage('--yes agrees to an activation', 'add --activate, or leave --yes out')
  const api = await openApi(options)
  const found = await send(api, '/policy/candidate', bundle, flags)
  if (found.in_force) {
    tell(options, found, [
      inForceLine(found),
      'nothing was uploaded, and nothing is to be activated',
    ])
    return
  }
  const lines = [...impactLines(found), `uploaded: ${found.digest}`]
  if (flags.activate !== true) {
    tell(options, found, [
      ...lines,
      `next: sallyport policy activate ${found.digest}, by another person where the site asks for two;`,
      `      or first sallyport policy try ${found.digest} --shadow`,
    ])
    return
  }
  if (!options.json) for (const line of lines) note(line)
  if (flags.yes !== true && !(await agreed()))
    throw new CliError('nothing was activated', {
      code: 'policy.not_agreed',
      exit: 'failed',
      next: `it stays uploaded: sallyport policy activate ${found.digest}`,
    })
  await bring(api, options, found.digest)
}

async function agreed(): Promise<boolean> {
  if (!process.stdin.isTTY) {
    note('nobody is there to agree: add --yes')
    return false
  }
  const { createInterface } = await import('node:readline/promises')
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await lines.question('bring it into force? yes/no ').finally(() => lines.close())
  return answer.trim().toLowerCase() === 'yes'
}

export async function activate(digest: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  if (!/^[0-9a-f]{64}$/.test(digest))
    throw usage('a digest is 64 hex digits', 'sallyport policy status shows the one that waits')
  await bring(await openApi(options), options, digest)
}

async function bring(api: Api, options: Parameters<typeof tell>[0], digest: string): Promise<void> {
  const done = await api.call(PolicyActivated, 'POST', '/policy/activate', { digest })
  tell(options, done, activatedLines(done))
}

export async function trial(
  digest: string | undefined,
  flags: { shadow?: boolean; percent?: string; label?: string; end?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { shadow = false, percent, label, end = false } = flags
  const ways = [shadow, percent !== undefined, label !== undefined, end].filter(Boolean).length
  if (digest === undefined ? ways > (end ? 1 : 0) : ways !== 1 || end)
    throw usage(
      'say what to try and for whom',
      'policy try DIGEST with one of --shadow, --percent N, --label NAME=VALUE; policy try; policy try --end',
    )
  if (label !== undefined && !/^[^=]{1,64}=.{0,128}$/.test(label))
    throw usage(
      `${JSON.stringify(label)} is no label of a device`,
      'write it as NAME=VALUE, as in ring=test',
    )
  const api = await openApi(options)
  const now = await tried(api, digest, { shadow, percent, label, end })
  tell(options, now, trialLines(now))
}

async function tried(
  api: Api,
  digest: string | undefined,
  way: { shadow: boolean; percent?: string | undefined; label?: string | undefined; end: boolean },
): Promise<PolicyTrial> {
  if (way.end) return api.call(PolicyTrial, 'POST', '/policy/trial/end')
  if (digest === undefined) return api.call(PolicyTrial, 'GET', '/policy/trial')
  return api.call(PolicyTrial, 'POST', '/policy/trial', {
    digest,
    mode: way.shadow ? 'shadow' : 'canary',
    ...(way.percent === undefined ? {} : { percent: readInteger(way.percent, 'share', 0, 100) }),
    ...(way.label === undefined ? {} : { label: way.label }),
  })
}

export async function rollback(
  flags: { since: string; yes?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  if (flags.yes !== true) {
    const path = `/policy/rollback?since=${readSince(flags.since)}`
    const found = await api.call(PolicyImpact, 'GET', path)
    for (const line of ['going back:', ...impactLines(found)]) note(line)
    if (!(await agreed()))
      throw new CliError('nothing was changed', {
        code: 'policy.not_agreed',
        exit: 'failed',
        next: 'what is in force still decides; --yes goes back without a question',
      })
  }
  const done = await api.call(PolicyActivated, 'POST', '/policy/rollback')
  tell(options, done, activatedLines(done))
}
