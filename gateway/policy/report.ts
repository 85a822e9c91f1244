/** How the policy of a node fares, as a stock OPA says it (its status format): for whoever watches OPAs already. docs/policy.md. */
import type { EngineStatus } from '#policy'
import type { Config } from '../config.ts'
import { VERSION } from '../version.ts'
import type { JournalHealth } from './journal.ts'
import type { NodePolicy } from './node.ts'
import type { SourceHealth } from './source.ts'

/** What OPA writes for a time that has not been. */
const NEVER = '0001-01-01T00:00:00Z'
/** OPA's own code for whatever is wrong with a bundle; the message begins with ours. */
const BUNDLE_ERROR = 'bundle_error'

interface PluginState {
  readonly state: 'OK' | 'NOT_READY' | 'ERROR'
}

interface BundleStatus {
  readonly name: 'sallyport'
  readonly active_revision?: string
  readonly type?: 'snapshot'
  /** RFC 3339. */
  readonly last_successful_activation: string
  readonly last_successful_request: string
  readonly code?: string
  readonly message?: string
}

/** What `GET /v1/status` answers, as OPA's. */
export interface StatusReport {
  readonly result: {
    readonly labels: Readonly<Record<'id' | 'version' | 'site' | 'tenant', string>>
    readonly bundles: { readonly sallyport: BundleStatus }
    readonly plugins: Readonly<Record<'bundle' | 'decision_logs', PluginState>>
  }
}

export interface Reported {
  readonly labels: StatusReport['result']['labels']
  readonly status: Pick<EngineStatus, 'state' | 'revision' | 'last_failure'> & {
    /** Epoch seconds. */
    readonly activated_at: number
  }
  /** Undefined where bundles do not come by themselves. */
  readonly source: Pick<SourceHealth, 'checked_at' | 'error'> | undefined
  readonly journal: Pick<JournalHealth, 'state'>
}

/** Says what is in force, since when, and why something else is not. */
export function statusReport({ labels, status, source, journal }: Reported): StatusReport {
  const { state, revision, last_failure: failure, activated_at: at } = status
  const active = state === 'active'
  const wrong =
    failure === null ? (source?.error ?? undefined) : `${failure.code} ${failure.detail}`
  const sallyport: BundleStatus = {
    name: 'sallyport',
    ...(revision === null ? {} : { active_revision: revision, type: 'snapshot' }),
    last_successful_activation: active ? timeOf(at) : NEVER,
    last_successful_request: timeOf(source?.checked_at ?? null),
    ...(wrong === undefined ? {} : { code: BUNDLE_ERROR, message: wrong }),
  }
  const plugins = {
    bundle: { state: active ? 'OK' : 'NOT_READY' },
    decision_logs: { state: journal.state === 'OK' ? 'OK' : 'ERROR' },
  } as const
  return { result: { labels, bundles: { sallyport }, plugins } }
}

/** The report of a node, as it is at each call. */
export function reporting(
  { gateway: id, site, tenant }: Pick<Config, 'gateway' | 'site' | 'tenant'>,
  { service, source, journal }: Pick<NodePolicy, 'service' | 'source' | 'journal'>,
): () => StatusReport {
  const labels = { id, version: VERSION, site, tenant }
  return () =>
    statusReport({
      labels,
      status: service.status(),
      source: source?.health(),
      journal: journal.health(),
    })
}

function timeOf(seconds: number | null): string {
  return seconds === null ? NEVER : new Date(seconds * 1000).toISOString().replace('.000Z', 'Z')
}
