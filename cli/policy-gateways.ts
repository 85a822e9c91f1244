/** What a person reads of the gateways on one store: what each decides by, side by side, and what to do where that differs. */
import type { PolicyStatus } from './client.ts'
import { instant, layOut, plain } from './print.ts'

type Gateways = NonNullable<PolicyStatus['gateways']>
type Row = Gateways['items'][number]

/** Nothing where the gateway is alone. */
export function gatewaysLines(gateways: PolicyStatus['gateways']): string[] {
  if (gateways === null) return []
  return [...table(gateways.items), ...verdictOf(gateways), ...fallen(gateways.items)].map(plain)
}

/** Behind an activation, which is of one gateway: whether the others decide by the same. */
export function followLines(gateways: PolicyStatus['gateways']): string[] {
  if (gateways === null) return []
  const own = gateways.items.find(({ here }) => here)
  const others = gateways.items.filter(({ bundle_digest: digest }) => digest !== own?.bundle_digest)
  return [
    ...others.map(
      ({ gateway, revision }) =>
        `gateway ${gateway} was not changed: it decides by ${revision ?? 'no policy'}`,
    ),
    ...verdictOf(gateways),
  ].map(plain)
}

function table(rows: readonly Row[]): string[] {
  return layOut({
    head: ['gateway', 'revision', 'seq', 'sha256', 'since', 'on trial'],
    rows: rows.map((row) => [
      row.here ? `${row.gateway} (asked)` : row.gateway,
      row.revision ?? 'none: all is denied',
      row.seq,
      row.bundle_digest?.slice(0, 12),
      instant(row.activated_at),
      trialOf(row.trial),
    ]),
    empty: '',
  }).split('\n')
}

function trialOf(trial: Row['trial']): string | null {
  if (trial === null) return null
  const { mode, revision, percent, label } = trial
  return mode === 'shadow' ? `${revision}, shadow` : `${revision}, ${label ?? `${percent} %`}`
}

function verdictOf({
  state,
  since,
  items,
  next_step: next,
  looked_at: looked,
}: Gateways): string[] {
  if (state === 'unknown')
    return [
      `what the other gateways decide by is not known: the store they share ${looked === null ? 'has not been read yet' : `was last read ${instant(looked)}`}`,
      'next: parts.shared_store of /healthz says whether it answers; every gateway goes on by its own policy meanwhile',
    ]
  if (state === 'alike')
    return [
      items.length === 1 ? 'no other gateway is heard of' : 'all of them decide by one policy',
    ]
  return [
    `THEY DIFFER${since === null ? '' : `, since ${instant(since)}`}: the same question may be answered otherwise at another gateway`,
    ...(next === null ? [] : [`next: ${next}`]),
  ]
}

/** A canary that ended by itself, at whichever gateway. */
function fallen(rows: readonly Row[]): string[] {
  return rows.flatMap(({ gateway, verdict }) =>
    verdict === null
      ? []
      : [
          `gateway ${gateway} took ${verdict.revision} off trial by itself, ${instant(Math.floor(verdict.at / 1000))}: ${verdict.reason}`,
        ],
  )
}
