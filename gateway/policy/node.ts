/** The policy of a node as its composition needs it: what decides, what records, where bundles come from. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AuditLog, EndedEpoch, EventInput } from '#audit'
import { BUILTIN_BUNDLE, keyIdOf, type Candidate, type PublicKeys } from '#policy'
import type { Config } from '../config.ts'
import { Decisions } from '../decisions.ts'
import { Refusal } from '../problem.ts'
import type { Replay } from './impact.ts'
import { exportApart, unmasked, type Cursor } from './exporter.ts'
import { DecisionJournal, type Anchor, type JournalHealth } from './journal.ts'
import { loggedMarks } from './marks.ts'
import { openNodePolicy } from './open.ts'
import { replayApart } from './replayer.ts'
import type { ServiceParts } from './parts.ts'
import { PolicyService } from './service.ts'
import { BundleSource } from './source.ts'

/** Of one page of the decision log that is handed out. */
const EXPORT_BYTES = 1024 * 1024

export interface NodePolicy {
  readonly service: PolicyService
  readonly journal: DecisionJournal
  readonly decisions: Decisions
  /** Replays what is logged from a time on, in a thread of its own. */
  readonly replay: (from: number, inForce: Candidate, candidate: Candidate) => Promise<Replay>
  /**
   * A page of the decision log as it may leave, masked by the policy in force. Throws Refusal `policy.mask`, and
   * `decision.unknown` where a chain does not reach as far as it is to be begun.
   */
  readonly exported: (begin: Cursor) => Promise<string>
  /** Where bundles come from by themselves; undefined where the configuration names nothing. */
  readonly source: BundleSource | undefined
}

/**
 * Opens bundles and decision log under the data directory and brings a policy into force. Throws
 * what reading a trusted key or the directory throws: whoever named a key must not run without it.
 */
export async function openPolicy(
  config: Pick<Config, 'data' | 'policy' | 'tenant' | 'gateway' | 'site' | 'timezone'>,
  { log, ended, now, report }: Room,
  undo: AsyncDisposableStack,
): Promise<NodePolicy> {
  const marks = await loggedMarks(log, ended)
  const parts = await openNodePolicy(join(config.data, 'policy'), marks, undo, {
    keys: readTrust(config.policy?.trust ?? []),
    now: () => performance.now(),
    staleness: config.policy?.staleness,
  })
  const { engine } = parts
  const builtin = new Uint8Array(readFileSync(BUILTIN_BUNDLE))
  const service = undo.use(await PolicyService.start({ ...parts, builtin, log, now, report }))
  const { tenant, gateway, site, timezone } = config
  const place = { tenant, gateway, site, timezone }
  const directory = join(config.data, 'decisions')
  const anchor = (where: Anchor) => log.append(anchorEvent(where))
  const journal = undo.use(await DecisionJournal.open({ directory, place, report, anchor }))
  const settings = config.policy?.source
  const take = (archive: Uint8Array<ArrayBuffer>, from: string) => service.take(archive, from)
  const forgive = (): void => service.forgive()
  const source = settings && new BundleSource(settings, { take, forgive, now, report })
  const replay: NodePolicy['replay'] = async (from, inForce, candidate) => {
    // What cannot be written is not in the log, and `policy status` counts it.
    await journal.settled().catch(() => undefined)
    const staleness = config.policy?.staleness
    return replayApart({ directory, from, inForce, candidate, staleness })
  }
  const exported: NodePolicy['exported'] = async (begin) => {
    const candidate = service.inForce()
    if (candidate === null) throw unmasked('no policy is in force that says what to mask')
    await journal.settled().catch(() => undefined)
    reaches(begin, journal.health())
    return exportApart({ directory, begin, candidate, maxBytes: EXPORT_BYTES })
  }
  const decisions = new Decisions(engine, place, now, journal)
  return { service, journal, source, decisions, replay, exported }
}

/** A log that was restored or begun anew counts from less: what it holds since would be passed over unsaid. */
function reaches(begin: Cursor, { rings }: JournalHealth): void {
  for (const { name, count } of rings) {
    const from = begin[name]
    if ('seq' in from && from.seq > count)
      throw new Refusal(
        'decision.unknown',
        `the decision log ends before that: ${name} at ${count}`,
        {
          nextStep: 'it is not the log that was read before: begin it by time, with --since',
        },
      )
  }
}

/** Where a chain of decisions stands, said where it cannot be changed with the chain. */
function anchorEvent({ ring, count, head, before }: Anchor): EventInput {
  return {
    code: 'policy.decision',
    message: `decision log ${ring}: ${count} records`,
    status: 'success',
    data: {
      operation: 'decisions.anchor',
      entity: `decisions/${ring}`,
      count,
      before_sha256: before,
      record_sha256: head,
    },
  }
}

interface Room extends Pick<ServiceParts, 'now' | 'report'> {
  readonly log: Pick<AuditLog, 'append' | 'read' | 'size' | 'origin'>
  /** Earlier epochs of it, the newest first. */
  readonly ended: readonly EndedEpoch[]
}

function readTrust(files: readonly string[]): PublicKeys {
  return new Map(
    files.map((file) => {
      const pem = readFileSync(file, 'utf8')
      return [keyIdOf(pem), pem]
    }),
  )
}
