/** What `sallyport policy` asks of a running gateway, and what a person reads of its answers. */
import type { Command } from 'commander'
import type { Input, Point } from '#policy'
import {
  DecisionsPage,
  LoggedDecision,
  openApi,
  PolicyActivated,
  PolicyImpact,
  PolicyStatus,
  PolicyTrial,
  WhoCan,
  type Api,
} from './client.ts'
import { CliError, usage } from './exit.ts'
import { readBytes, readDuration, readInteger, readProcess, readText } from './input.ts'
import { writeOut } from './output.ts'
import { facts, instant, layOut, note, plain, say, tell, show } from './print.ts'
import { globalOptions } from './commands/options.ts'
import { explained, explainedLines } from './commands/policy.ts'

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
    ['trusted keys', now.trusted_keys.join(', ')],
    [
      'decision log',
      `${now.journal.state}, ${now.journal.written} written since the start, ${now.journal.dropped} dropped`,
    ],
  ])
  lines.push(...sourceLines(now.bundle_source))
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

function sourceLines(source: PolicyStatus['bundle_source']): string[] {
  if (source === null) return []
  const { from, state, checked_at: at, etag, error } = source
  const looked = at === null ? 'not looked at yet' : `looked at last ${instant(at)}`
  const called = etag === null ? '' : `, ETag ${etag}`
  return [
    ...facts([['bundles from', `${from}: ${state}, ${looked}${called}`]]),
    ...(error === null ? [] : [`  nothing is taken from there now: ${error}`]),
  ]
}

function sinceOf(text: string): number {
  return Math.floor(Date.now() / 1000) - readDuration(text)
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
  const bytes = readBytes(bundle, 'bundle')
  const query = new URLSearchParams({ since: String(sinceOf(since)) })
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

function trialLines(now: PolicyTrial): string[] {
  const whom = now.label ?? `${now.percent} % of people and devices`
  return [
    ...facts([
      ['on trial', `${now.revision}, ${now.mode === 'shadow' ? 'as a shadow' : `for ${whom}`}`],
      ['state', now.reason === null ? now.state : `${now.state}: ${now.reason}`],
      ['since', instant(now.since)],
      ['decisions', now.decisions],
      ['passed over', now.passed_over],
      ['newly denied', now.newly_denied],
      ['newly allowed', now.newly_allowed],
      ['bound otherwise', now.obligations],
      ['errors', now.errors],
    ]),
    ...turnedLines(now.differences),
    ...(now.state === 'running'
      ? ['next: sallyport policy try shows how it fares; sallyport policy try --end ends it']
      : []),
  ]
}

export async function rollback(
  flags: { since: string; yes?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  if (flags.yes !== true) {
    const path = `/policy/rollback?since=${sinceOf(flags.since)}`
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

function activatedLines({ revision, digest, sessions, slowest_ms }: PolicyActivated): string[] {
  const cut = sessions.map(
    ({ id, time_to_cut_ms }) => `cut ${id} in ${time_to_cut_ms.toFixed(1)} ms`,
  )
  return [
    ...facts([
      ['in force', revision],
      ['sha256', digest],
      ['sessions cut', sessions.length],
      ['slowest cut', slowest_ms === null ? null : `${slowest_ms.toFixed(1)} ms`],
    ]),
    ...cut,
  ]
}

function impactLines({ revision, seq, live, past }: PolicyImpact): string[] {
  const lines = [
    `revision ${revision}, seq ${seq}, will cut ${live.cut.length} of ${live.sessions} live sessions`,
  ]
  if (live.cut.length > 0)
    lines.push(
      layOut({
        head: ['session', 'device', 'process', 'person', 'code'],
        rows: live.cut.map((one) => [one.session, one.device, one.process, one.person, one.code]),
        empty: '',
      }),
    )
  lines.push(...narrowedLines(live.narrowed))
  if (past === null) return lines
  lines.push(
    `${past.replayed} of ${past.decisions} past decisions replayed, ${past.not_replayable} not replayable; ` +
      `${past.turned.length}${past.truncated ? '+' : ''} kinds come out otherwise`,
    past.from === null ? 'no decision of that time is kept' : `decisions from ${past.from} on`,
  )
  return [...lines, ...turnedLines(past.turned)]
}

function narrowedLines(narrowed: PolicyImpact['live']['narrowed']): string[] {
  if (narrowed.length === 0) return []
  const cut = narrowed.reduce((all, { connections }) => all + connections, 0)
  return [
    `${narrowed.length} of those that stay may do less; ${cut} of their connections are cut`,
    layOut({
      head: ['session', 'device', 'process', 'person', 'less', 'cut'],
      rows: narrowed.map((one) => [
        one.session,
        one.device,
        one.process,
        one.person,
        one.tightened.map(lessOf).join(', '),
        one.connections,
      ]),
      empty: '',
    }),
  ]
}

/** `max_bytes 1000 (was 2000)`; lists are told by name, --json has them. */
function lessOf({
  name,
  before,
  after,
}: PolicyImpact['live']['narrowed'][number]['tightened'][number]): string {
  const plainly = [before, after].every((one) => ['number', 'boolean'].includes(typeof one))
  return plainly ? `${name} ${String(after)} (was ${String(before)})` : name
}

function turnedLines(turned: PolicyTrial['differences']): string[] {
  if (turned.length === 0) return []
  return [
    layOut({
      head: ['count', 'change', 'point', 'person', 'zone', 'codes', 'for example'],
      rows: turned.map((one) => [
        one.count,
        one.change,
        one.point,
        one.person,
        one.zone,
        one.codes.join(' '),
        one.example,
      ]),
      empty: '',
    }),
  ]
}

async function logged(api: Api, id: string): Promise<LoggedDecision> {
  if (!/^d_[0-9a-z]{26}$/.test(id))
    throw usage(`${JSON.stringify(id)} is not the id of a decision`, 'it begins with d_')
  return api.call(LoggedDecision, 'GET', `/decisions/${id}`)
}

/** Records of the decision log, a line each, as the policy in force lets them leave. */
export async function decisions(
  flags: { since: string; out?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  const lines: string[] = []
  const put = (line: string): void => {
    if (flags.out === undefined) say(line)
    else lines.push(line)
  }
  let query = `from=${sinceOf(flags.since) * 1000}`
  let count = 0
  for (;;) {
    const page = await api.call(DecisionsPage, 'GET', `/decisions?${query}`)
    for (const item of page.items) put(JSON.stringify(item))
    count += page.items.length
    if (page.next === null) break
    query = `from=${page.next.at}&after=${page.next.id}`
  }
  if (flags.out !== undefined) writeOut(flags.out, lines.map((line) => `${line}\n`).join(''))
  note(`${count} decisions`)
}

export async function why(id: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  const decision = await logged(api, id)
  tell(options, { ...decision, input: null }, whyLines(decision))
}

const REMEDIES: Readonly<Record<string, string>> = {
  step_up: 'sign in again with a second factor',
  request_grant: 'request a grant: sallyport request DEVICE/PROCESS --for 2h --reason …',
  request_window: 'ask for a time in which the zone is open',
  approve: 'an approver of the zone has to approve: sallyport grants, sallyport approve',
  upgrade: 'the engineer of the device upgrades its agent',
  attest: 'let the device, or the computer, be checked again',
  consent: 'the people at the device consent there',
}

function whyLines(decision: LoggedDecision): string[] {
  const { point, effect, timestamp, revision, zone } = decision
  const lines = facts([
    ['decision', `${point}: ${effect}`],
    ['at', timestamp],
    ['revision', revision],
    ['zone', zone],
  ])
  for (const one of decision.why) {
    lines.push(`${effect === 'allow' ? 'because' : 'not'}  ${one.code}  ${one.msg ?? ''}`.trimEnd())
    const remedy = one.remedy === null ? undefined : (REMEDIES[one.remedy] ?? one.remedy)
    if (one.next_step !== null) lines.push(`    ${one.next_step}`)
    if (remedy !== undefined) lines.push(`    ${remedy}`)
  }
  return lines.map(plain)
}

export async function explain(id: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const api = await openApi(options)
  const decision = await logged(api, id)
  const now = await api.call(PolicyStatus, 'GET', '/policy')
  if (decision.layer !== 'rego')
    throw new CliError('Rego was not asked: the gateway itself refused', {
      code: 'policy.layer',
      exit: 'failed',
      why: decision.why.map(({ code, msg }) => `${code}: ${msg ?? ''}`).join('; '),
    })
  if (now.revision !== decision.revision || now.data_digest !== decision.data_digest)
    note(
      `decided by revision ${plain(decision.revision ?? 'none')}; explained by ${plain(now.revision ?? 'none')}, which is in force now`,
    )
  const room = await import('#policy-toolchain')
  const files = room.untrusted(await api.fetch('/policy/bundle'))
  const rules = await explained(room, files, decision.point as Point, decision.input as Input)
  tell(options, { ...decision, rules }, [...whyLines(decision), ...explainedLines(rules)])
}

/** Every account, page by page, those who may first. */
async function everybody(api: Api, device: string, process: string): Promise<WhoCan> {
  const items: WhoCan['items'] = []
  let after: string | null = null
  for (;;) {
    const query = new URLSearchParams({ device, process, ...(after === null ? {} : { after }) })
    const page: WhoCan = await api.call(WhoCan, 'GET', `/policy/who-can?${query.toString()}`)
    items.push(...page.items)
    after = page.next
    if (after === null) {
      const may = (one: WhoCan['items'][number]): number => Number(one.effect === 'allow')
      return { ...page, items: items.toSorted((a, b) => may(b) - may(a)) }
    }
  }
}

export async function whoCan(text: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { device, process: name } = readProcess(text)
  const answer = await everybody(await openApi(options), device, name)
  show(options, answer, {
    head: ['person', 'party', 'company', 'now', 'because', 'grant'],
    rows: answer.items.map((one) => [
      one.person,
      one.party,
      one.vendor,
      one.effect,
      one.codes.join(' '),
      one.grant,
    ]),
    empty: 'there are no accounts',
  })
  const may = answer.items.filter(({ effect }) => effect === 'allow').length
  note(`${may} of ${answer.items.length} accounts may right now`)
}
