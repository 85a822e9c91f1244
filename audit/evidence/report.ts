/** The report that people read and print: the answer, and how one knows. Every text of the log is escaped. */
import type { Answered } from './package.ts'
import { caveat, disclaimer } from './catalogue.ts'
import type { EvidenceRow, Question } from './queries.ts'
import { answer, count } from './verify.mjs'
import type { Event, Gap, Grant, Judgement, Session } from './verify.mjs'

export interface Report {
  readonly question: Question
  readonly judgement: Judgement
  readonly controls: readonly Answered[]
  readonly device: string | undefined
}

function esc(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value ?? '') ?? '')
  const shown = value === undefined || value === null ? '' : text
  return shown.replace(/[&<>"']/g, (found) => `&#${found.charCodeAt(0)};`)
}

const time = (ms: number): string => new Date(ms).toISOString().slice(0, 19).replace('T', ' ')
const person = (event: Event | null): string =>
  String(event?.['actor']?.user?.name ?? event?.['actor']?.user?.uid ?? 'unknown')
const factsOf = (event: Event | null): Record<string, unknown> =>
  event === null ? {} : (event['unmapped'].sallyport as Record<string, unknown>)
const sequence = (event: Event | null): string =>
  event === null ? '' : `#${String(event['metadata'].sequence)}`

function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  empty: string,
): string {
  if (rows.length === 0) return `<p class="none">${esc(empty)}</p>`
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join('')}</tr>`
  return `<table><thead>${line(head.map(esc), 'th')}</thead><tbody>${rows.map((row) => line(row, 'td')).join('\n')}</tbody></table>`
}

const verdicts: Readonly<Record<string, string>> = {
  complete: 'Complete: nothing else happened through this gateway in that time.',
  'complete with listed recoveries':
    'Complete, with the interruptions listed below: nothing else was let through in that time.',
  'not provable': 'Not provable for all of that time: what is missing is listed below.',
}

function gapText({ kind }: Gap): string {
  return {
    stopped: 'the gateway was stopped in order; it lets nobody through while it is',
    crashed: 'the gateway ended without a word and was started again; no session could begin',
    silent: 'no heartbeat although the gateway ran: what was active is not attested',
    before: 'the log says nothing of this time yet',
    after: 'the log says nothing of this time any more',
  }[kind]
}

function grantRow(grant: Grant): string[] {
  const approved = grant.approvals.map(
    ({ who, time: at, idx }) => `${esc(who)}<br><small>${time(at)} #${idx}</small>`,
  )
  const ended =
    grant.ended === null
      ? ''
      : `<br><small>${esc(grant.ended.how)} ${time(grant.ended.time)} by ${esc(grant.ended.by)}</small>`
  return [
    `${esc(grant.who)}<br><small>${esc(grant.id)} #${grant.requestIdx}</small>`,
    `${esc(grant.devices.join(', '))} / ${esc(grant.processes.join(', '))}`,
    `${time(grant.notBefore)}<br>to ${time(grant.notAfter)}${ended}`,
    approved.length === 0 ? 'nobody: policy asked for none' : approved.join('<br>'),
    `${esc(grant.reason)}${grant.ticket === '' ? '' : `<br><small>ticket ${esc(grant.ticket)}</small>`}`,
  ]
}

function actText(event: Event): string {
  const facts = factsOf(event)
  const code = String(event['metadata'].event_code)
  if (code === 'http.request')
    return `${esc(facts['method'])} ${esc(facts['path'])} ${event['status_id'] === 1 ? '' : '(refused)'}`
  const what = `unit ${esc(facts['unit'])} function ${esc(facts['function_code'])} address ${esc(facts['address'])} × ${esc(facts['quantity'])}`
  return `${code === 'ot.write' ? 'wrote' : 'was refused'}: ${what}`
}

const actsShown = 40

function sessionRow(session: Session & { acts: Event[] }, grants: readonly Grant[]): string[] {
  const { start, end, acts } = session
  const facts = { ...factsOf(end), ...factsOf(start) }
  const grant = grants.find(({ id }) => id === facts['grant'])
  const observed = factsOf(end)['observed'] as { exe?: string; sha256?: string } | null | undefined
  const program =
    observed?.exe === undefined
      ? ''
      : `<br><small>program ${esc(observed.exe)} ${esc(observed.sha256?.slice(0, 16))}</small>`
  const more =
    acts.length > actsShown ? [`and ${acts.length - actsShown} more, in log/events.ndjson`] : []
  const done = [...acts.slice(0, actsShown).map(actText), ...more].join('<br>')
  const bytes =
    end === null
      ? ''
      : `${esc(factsOf(end)['bytes_in'] ?? '?')} bytes in, ${esc(factsOf(end)['bytes_out'] ?? '?')} out`
  return [
    `${esc(person(start ?? end))}<br><small>${esc(facts['party'])} ${esc(session.id)} ${sequence(start)}</small>`,
    `${esc(facts['device'])} / ${esc(facts['process'])}${program}`,
    `${start === null ? 'before' : time(start['time'])}<br>to ${end === null ? 'still open' : `${time(end['time'])}<br><small>${esc(factsOf(end)['reason'])} ${sequence(end)}</small>`}`,
    grant === undefined
      ? esc(facts['grant'])
      : `${grant.approvals.map(({ who }) => esc(who)).join(', ') || 'no approval needed'}<br><small>${esc(grant.id)}</small>`,
    `${bytes}${done === '' ? '' : `<br>${done}`}`,
  ]
}

function eventRow(event: Event): string[] {
  return [
    sequence(event),
    time(event['time']),
    esc(event['metadata'].event_code),
    esc(person(event)),
    esc(event['message']),
  ]
}

function deviceSection({ question }: Report, device: string): string {
  const { grants, sessions, denied, cuts } = answer(
    question.proven.events,
    question.from,
    question.to,
    device,
  )
  return `<section><h2>${esc(device)}</h2>
<h3>Who could reach it: ${count(grants.length, 'grant')} in force</h3>
${table(['Who', 'What', 'When', 'Approved by', 'Why'], grants.map(grantRow), 'Nobody could: no grant for it was in force.')}
<h3>Who did: ${count(sessions.length, 'session')}</h3>
${table(
  ['Who', 'What', 'When (UTC)', 'On whose approval', 'Doing what'],
  sessions.map((session) => sessionRow(session, grants)),
  'Nobody did.',
)}
<h3>Refused, cut, locked or revoked</h3>
${table(['Event', 'When (UTC)', 'What', 'Who', 'In words'], [...denied, ...cuts].map(eventRow), 'Nothing.')}
</section>`
}

function devicesOf({ question, device }: Report): string[] {
  if (device !== undefined) return [device]
  const found = new Set<string>()
  for (const event of question.proven.events) {
    const one = factsOf(event)['device']
    const named = String(event['metadata'].event_code)
    if (typeof one === 'string' && /^(session|grant)\./.test(named))
      for (const name of one.split(',')) found.add(name)
  }
  return [...found].toSorted()
}

function proofSection({ question, judgement }: Report): string {
  const { proven } = question
  const items = [
    `The log ${esc(proven.origin)} is a Merkle tree of events; its heads are signed. This package holds <b>every</b> event from #${proven.first} to #${proven.last - 1}. Hashing them in order gives the signed root: had one been left out, added, changed or moved, it would not.`,
    'An event is on disk before the gateway acts on it, so what is not in the log was not done through this gateway.',
    'At least every 60 seconds the log commits to the set of active sessions, also when it is empty. Silence of more than 90 seconds is listed below.',
    judgement.exceptions.length === 0
      ? 'Every session began under a grant in force, with the approvals it needed, none of them by its requester.'
      : `${judgement.exceptions.length} sessions do not agree with their grants; they are listed below.`,
    'Check it yourself, offline: <code>node verify.mjs PACKAGE.zip --key KEYFILE</code> or <code>python3 verify.py PACKAGE.zip --key KEYFILE</code>, with keys from whoever you trust for them.',
  ]
  const gaps = judgement.gaps.map((gap) => [
    esc(time(gap.from)),
    esc(time(gap.to)),
    esc(gap.kind),
    esc(gapText(gap)),
    `#${gap.idx}`,
  ])
  const rest = [
    ...judgement.recoveries.map(({ idx, message }) => `#${idx}: ${message}`),
    ...judgement.untold,
    ...judgement.exceptions.map(({ idx, what }) => `#${idx}: ${what}`),
  ]
  return `<section><h2>How do I know there is nothing else?</h2><ol>${items.map((item) => `<li>${item}</li>`).join('')}</ol>
<h3>Times without a heartbeat</h3>${table(['From (UTC)', 'To', 'Kind', 'Meaning', 'Event'], gaps, 'None.')}
<h3>Recoveries, exceptions, and what cannot be told</h3>${rest.length === 0 ? '<p class="none">None.</p>' : `<ul>${rest.map((line) => `<li>${esc(line)}</li>`).join('')}</ul>`}
<h3>What this cannot show</h3><p>Access around Sallyport; a gateway whose program was replaced; duties of organisation.${proven.first === 0 ? '' : ` Grants that were requested before event #${proven.first}.`} Times are those of the gateway&#39;s clock.</p></section>`
}

const rowsShown = 12

function controlSection({ control, rows, exceptions }: Answered): string {
  const shown = rows
    .slice(0, rowsShown)
    .map((row: EvidenceRow) => [
      `#${row.idx}`,
      esc(row.time.slice(0, 19).replace('T', ' ')),
      esc(row.event),
      esc(row.who),
      esc(row.detail),
    ])
  const more =
    rows.length > rowsShown
      ? `<p class="none">and ${rows.length - rowsShown} more in controls/${esc(control.id)}.csv</p>`
      : ''
  const state =
    control.expect === 'empty'
      ? rows.length === 0
        ? 'as it should be: none'
        : `${exceptions} exceptions`
      : `${rows.length} rows${exceptions === 0 ? '' : `, ${exceptions} exceptions first`}`
  return `<section class="control"><h3>${esc(control.edition)} ${esc(control.ref)}: ${esc(control.title)}</h3>
<p>${esc(control.gist)} <small>${esc(disclaimer)} ${esc(caveat(control))} ${esc(control.limits)}</small></p><p><b>${esc(state)}</b></p>
${rows.length === 0 ? '' : table(['Event', 'When (UTC)', 'What', 'Who', 'In words'], shown, '')}${more}</section>`
}

const style = `@page{size:A4;margin:16mm 14mm 18mm;@bottom-right{content:counter(page) " / " counter(pages);font:9px sans-serif}}
:root{color-scheme:light}body{font:13px/1.45 system-ui,sans-serif;color:#1a1f24;max-width:1000px;margin:24px auto;padding:0 16px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:28px 0 6px;border-bottom:2px solid #1a1f24;padding-bottom:3px}h3{font-size:14px;margin:16px 0 4px}
.verdict{border:2px solid;border-radius:4px;padding:10px 14px;margin:14px 0;font-size:15px}.good{border-color:#1b6b3a;background:#eef7f1}.bad{border-color:#a3261d;background:#fbeeed}
table{border-collapse:collapse;width:100%;margin:4px 0 8px}th,td{text-align:left;vertical-align:top;border-bottom:1px solid #c9d0d6;padding:4px 8px 4px 0;overflow-wrap:anywhere}th{font-size:11px;color:#4a545d}
thead{display:table-header-group}tr{break-inside:avoid}h2,h3{break-after:avoid}small{color:#56616b;font-size:11px}.none{color:#56616b;margin:2px 0}code{font-size:12px;overflow-wrap:anywhere}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:8px 0}dt{color:#56616b}dd{margin:0;overflow-wrap:anywhere}
@media print{body{margin:0;max-width:none;padding:0;font-size:10.5px}section.control{break-inside:avoid-page}*{print-color-adjust:exact}}`

/** The whole page, self-contained: no script, no request. */
export function reportHtml(report: Report): string {
  const { question, judgement, controls, device } = report
  const { proven, from, to } = question
  const good = judgement.outcome === 'proven' && judgement.exceptions.length === 0
  const title = `Evidence ${device ?? ''} ${time(from)} to ${time(to)}`.replace('  ', ' ')
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${esc(title)}</title><style>${style}</style></head><body>
<h1>${device === undefined ? 'Remote access' : `Access to ${esc(device)}`}</h1>
<p>${time(from)} to ${time(to)} UTC</p>
<div class="verdict ${good ? 'good' : 'bad'}"><b>${esc(verdicts[judgement.words] ?? judgement.words)}</b><br>${judgement.exceptions.length === 0 ? 'No exceptions.' : `${judgement.exceptions.length} exceptions.`}</div>
<dl><dt>Log</dt><dd>${esc(proven.origin)}</dd><dt>Events</dt><dd>#${proven.first} to #${proven.last - 1}, all of them in this package</dd><dt>Signed heads</dt><dd>${proven.heads}</dd></dl>
${devicesOf(report)
  .map((name) => deviceSection(report, name))
  .join('\n')}
${proofSection(report)}
${controls.length === 0 ? '' : `<section><h2>By clause</h2><p><b>${esc(disclaimer)}</b></p></section>${controls.map(controlSection).join('\n')}`}
</body></html>
`
}
