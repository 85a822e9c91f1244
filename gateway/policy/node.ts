/** What the policy of a node is made of: its directory, its trusted keys, the archive it came with. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AuditLog } from '#audit'
import { BUILTIN_BUNDLE, keyIdOf, PolicyEngine, type PublicKeys } from '#policy'
import type { Config } from '../config.ts'
import { Decisions } from '../decisions.ts'
import { DecisionJournal } from './journal.ts'
import { PolicyService } from './service.ts'
import { BundleSlots } from './slots.ts'
import { BundleSource } from './source.ts'

export interface NodePolicy {
  readonly service: PolicyService
  readonly journal: DecisionJournal
  readonly decisions: Decisions
  /** Where bundles come from by themselves; undefined where the configuration names nothing. */
  readonly source: BundleSource | undefined
}

/**
 * Opens bundles and decision log under the data directory and brings a policy into force. Throws
 * what reading a trusted key or the directory throws: whoever named a key must not run without it.
 */
export async function openPolicy(
  config: Pick<Config, 'data' | 'policy' | 'tenant' | 'gateway' | 'site' | 'timezone'>,
  {
    log,
    now,
    report,
  }: Pick<Parameters<typeof PolicyService.boot>[0], 'now' | 'report'> & {
    readonly log: Pick<AuditLog, 'append'>
  },
): Promise<NodePolicy> {
  const engine = PolicyEngine.unavailable({ now: () => performance.now() })
  const service = await PolicyService.boot({
    engine,
    slots: BundleSlots.open(join(config.data, 'bundles')),
    trust: readTrust(config.policy?.trust ?? []),
    builtin: new Uint8Array(readFileSync(BUILTIN_BUNDLE)),
    log,
    now,
    report,
  })
  const { tenant, gateway, site, timezone } = config
  const place = { tenant, gateway, site, timezone }
  const journal = DecisionJournal.open({ directory: join(config.data, 'decisions'), place, report })
  const settings = config.policy?.source
  const take = (archive: Uint8Array<ArrayBuffer>, from: string) => service.take(archive, from)
  const source = settings && new BundleSource(settings, { take, now, report })
  return { service, journal, source, decisions: new Decisions(engine, place, now, journal) }
}

function readTrust(files: readonly string[]): PublicKeys {
  return new Map(
    files.map((file) => {
      const pem = readFileSync(file, 'utf8')
      return [keyIdOf(pem), pem]
    }),
  )
}
