/** `sallyport policy decisions|why|explain|who-can`: what a running gateway decided, and would decide now. */
import type { Command } from 'commander'
import type { Input, Point } from '#policy'
import { globalOptions } from './commands/options.ts'
import { DecisionsPage, LoggedDecision, openApi, PolicyStatus, WhoCan, type Api } from './client.ts'
import { CliError, usage } from './exit.ts'
import { readProcess, readSince } from './input.ts'
import { writeOut } from './output.ts'
import { explained, explainedLines } from './policy-eval.ts'
import { facts, note, plain, say, show, tell } from './print.ts'

async function logged(api: Api, id: string): Promise<LoggedDecision> {
  if (!/^d_[0-9a-z]{26}$/.test(id))
    throw usage(`${JSON.stringify(id)} is not the id of a decision`, 'it begins with d_')
  return api.call(LoggedDecision, 'GET', `/decisions/${id}`)
}

/** Records of the decision log, a line each, as the policy in force lets them leave; last, where the next look goes on. */
export async function decisions(
  flags: { since?: string; after?: string; out?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const first = beginning(flags)
  const api = await openApi(options)
  const parts: Buffer[] = []
  let count = 0
  for (let page = await api.call(DecisionsPage, 'GET', `/decisions?${first}`); ;) {
    const lines = page.items.map((item) => JSON.stringify(item))
    if (flags.out === undefined) for (const line of lines) say(line)
    else parts.push(Buffer.from(lines.map((line) => `${line}\n`).join('')))
    count += lines.length
    if (!page.more) {
      if (flags.out !== undefined) writeOut(flags.out, Buffer.concat(parts))
      note(`${count} decisions; those that come later: --after ${page.next}`)
      return
    }
    page = await api.call(DecisionsPage, 'GET', `/decisions?after=${page.next}`)
  }
}

function beginning({ since, after }: { since?: string; after?: string }): string {
  if (after === undefined) return `from=${readSince(since ?? '1d') * 1000}`
  if (since !== undefined)
    throw usage('--since and --after are two places to begin at', 'name one of them')
  if (!/^@?\d{1,15}\.@?\d{1,15}$/.test(after))
    throw usage(
      `${JSON.stringify(after)} is no place in the decision log`,
      'it is what the command said last, as in --after 120.7; begin with --since',
    )
  return `after=${after}`
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
