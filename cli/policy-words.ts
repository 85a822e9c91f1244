/** What a person reads of what a bundle would do, did, or does on trial. */
import type { PolicyActivated, PolicyImpact, PolicyStatus, PolicyTrial } from './client.ts'
import { followLines } from './policy-gateways.ts'
import { facts, instant, layOut } from './print.ts'

export function trialLines(now: PolicyTrial): string[] {
  const whom = now.label ?? `${now.percent} % of all pairs of a person and a device`
  return [
    ...facts([
      ['on trial', `${now.revision}, ${now.mode === 'shadow' ? 'as a shadow' : `for ${whom}`}`],
      ['where', `gateway ${now.gateway} alone: another one decides by what is in force there`],
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

export function activatedLines({
  revision,
  digest,
  already,
  sessions,
  slowest_ms,
  gateways,
}: PolicyActivated): string[] {
  if (already)
    return [
      `revision ${revision} is in force already`,
      'nothing was changed',
      ...followLines(gateways),
    ]
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
    ...followLines(gateways),
  ]
}

/** What the last change cut and how fast; null where there has been none since the start, or it has not come to them. */
export function cutsOf(cuts: PolicyStatus['last_cuts']): string | null {
  if (cuts === null) return null
  const { revision, sessions, connections, p50_ms: p50, slowest_ms: slowest } = cuts
  const what = `${sessions} sessions, ${connections} connections of others, by ${revision}`
  if (p50 === null || slowest === null) return what
  return `${what}: p50 ${p50.toFixed(1)} ms, slowest ${slowest.toFixed(1)} ms`
}

export function inForceLine({ revision, seq }: PolicyImpact): string {
  return `revision ${revision}, seq ${seq}, is in force already`
}

export function impactLines(impact: PolicyImpact): string[] {
  const { revision, seq, live, past, past_unread: unread } = impact
  const lines = [
    ...(impact.in_force ? [inForceLine(impact)] : []),
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
  lines.push(...narrowedLines(live.narrowed), ...unseenLines(live.unseen))
  if (unread !== null) lines.push(`the past was not looked at: ${unread}`)
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

function unseenLines(unseen: PolicyImpact['live']['unseen']): string[] {
  if (unseen.length === 0) return []
  return [
    `${unseen.length} could not be looked at, because the store of the gateway failed; an activation that finds it so cuts them`,
    layOut({
      head: ['session', 'device', 'process', 'person'],
      rows: unseen.map((one) => [one.session, one.device, one.process, one.person]),
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

export function sourceLines(source: PolicyStatus['bundle_source']): string[] {
  if (source === null) return []
  const { from, state, checked_at: at, etag, error } = source
  const looked = at === null ? 'not looked at yet' : `looked at last ${instant(at)}`
  const called = etag === null ? '' : `, ETag ${etag}`
  return [
    ...facts([['bundles from', `${from}: ${state}, ${looked}${called}`]]),
    ...(error === null ? [] : [`  nothing is taken from there now: ${error}`]),
  ]
}
