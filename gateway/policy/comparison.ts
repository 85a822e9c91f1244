/**
 * Says to the gateways that share a store what this one decides by, and hears it of them. A difference that stays is told once, and
 * once when it is over. Nothing that decides waits for any of it, and it fails alone: what is not known is shown as that.
 */
import type { AuditLog, EventInput } from '#audit'
import type { GatewayPolicy, PolicyGateways } from '#api'
import type { Config } from '../config.ts'
import { Rounds } from '../rounds.ts'
import {
  beside,
  DIFFER_S,
  followed,
  shown,
  sideBySide,
  verdictKey,
  type Difference,
  type GatewayPolicies,
} from './gateways.ts'
import type { NodePolicy } from './node.ts'
import type { PolicyService } from './service.ts'
import type { TrialStatus } from './trial.ts'

export interface ComparisonRoom {
  readonly policies: GatewayPolicies
  /** What this one decides by, now. */
  readonly own: () => GatewayPolicy
  /** A canary of this bundle ended by itself at another gateway. */
  readonly fall: (digest: string, reason: string) => void
  readonly log: Pick<AuditLog, 'append'>
  /** How long they may differ until that is told. */
  readonly boundMs: number
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly monotonic: () => number
  readonly report: (error: unknown, what: string) => void
}

const LOOK_MS = 2_000
/** Of what has not changed. */
const SAY_AGAIN_MS = 5_000
/** Who has said nothing for so long is not heard of any more; who could not look for so long knows nothing of others. */
const HEARD_MS = 15_000
/** Gateways on one store. */
const MOST = 64

/** How the gateways compare, as /healthz has it. */
export interface ComparisonHealth {
  readonly state: PolicyGateways['state']
  readonly gateways: number
  /** For how long this one has seen them differ; null where they do not. */
  readonly differ_s: number | null
  /** Whether that has been told in the log: it lasts longer than it may. */
  readonly told: boolean
}

export class PolicyComparison implements AsyncDisposable {
  readonly #of: ComparisonRoom
  readonly #rounds: Rounds
  #others: readonly GatewayPolicy[] = []
  /** When looks began to work again, monotonic, after some that did not: since then others have had time to be heard. */
  #hearing: number | undefined
  /** Of the last look that worked: monotonic, and epoch seconds. */
  #seen: { readonly at: number; readonly date: number } | undefined
  #said: { readonly text: string; readonly at: number } | undefined
  #difference: Difference | undefined
  /** Verdicts on canaries that were there before: one is followed once. By gateway. */
  readonly #verdicts = new Map<string, string>()
  readonly #failing = new Set<string>()

  constructor(of: ComparisonRoom) {
    this.#of = of
    this.#rounds = new Rounds(async () => {
      await this.look()
      return LOOK_MS
    })
  }

  /** Says and hears once; resolves when what it heard is followed. Never rejects. */
  async look(): Promise<void> {
    const { policies, monotonic, now, boundMs } = this.#of
    await this.#tried('what this gateway decides by is not told to the others', () => this.#say())
    const heard = await this.#tried('what the other gateways decide by is not known', async () => {
      const { gateway } = this.#of.own()
      this.#others = (await policies.list()).filter((row) => row.gateway !== gateway).slice(0, MOST)
      this.#seen = { at: monotonic(), date: Math.floor(now() / 1000) }
      this.#hearing ??= this.#seen.at
    })
    // Of a store that does not answer nothing is concluded.
    if (!heard) this.#hearing = undefined
    if (this.#hearing === undefined) return
    this.#follow()
    const rows = beside(this.#of.own(), this.#others)
    const { difference, news } = followed(this.#difference, rows, monotonic(), boundMs)
    // What they said was over while nobody could say it again: who is not heard of yet does not decide alike.
    if (difference === undefined && monotonic() - this.#hearing < HEARD_MS) return
    await this.#tried('whether the gateways decide alike could not be recorded', async () => {
      // What is not in the log has not been told: it is tried again at the next look.
      if (news !== null) await this.#of.log.append(eventOf(news, rows))
      this.#difference = difference
    })
  }

  /** As it is now; what the others said at the last look. */
  shown(): PolicyGateways {
    const { monotonic, now, own } = this.#of
    const began = this.#difference
    const ago = began === undefined ? 0 : monotonic() - began.since
    const since = Math.floor((now() - ago) / 1000)
    return shown(
      own(),
      this.#blind() ? undefined : this.#others,
      began && { since, told: began.told },
      this.#seen?.date ?? null,
    )
  }

  health(): ComparisonHealth {
    const { state, told, items } = this.shown()
    const since = this.#difference?.since ?? this.#of.monotonic()
    const seconds = Math.round((this.#of.monotonic() - since) / 1000)
    return { state, gateways: items.length, differ_s: state === 'differ' ? seconds : null, told }
  }

  #blind(): boolean {
    return this.#seen === undefined || this.#of.monotonic() - this.#seen.at >= HEARD_MS
  }

  async #say(): Promise<void> {
    const { policies, own, monotonic } = this.#of
    const row = own()
    const text = JSON.stringify(row)
    const at = monotonic()
    if (this.#said?.text === text && at - this.#said.at < SAY_AGAIN_MS) return
    if (!(await policies.say(row, HEARD_MS, MOST)))
      throw new Error(`${MOST} gateways are heard of already`)
    this.#said = { text, at }
  }

  /** A verdict that is new is on the canary that runs now; one that was there when that began is on one before. */
  #follow(): void {
    for (const row of this.#others) {
      const key = verdictKey(row)
      if (key === null || row.verdict === null || this.#verdicts.get(row.gateway) === key) continue
      this.#verdicts.set(row.gateway, key)
      this.#of.fall(row.verdict.digest, `gateway ${row.gateway}: ${row.verdict.reason}`)
    }
    // Of gateways that are heard of no more the oldest go.
    const heard = new Set(this.#others.map(({ gateway }) => gateway))
    for (const name of this.#verdicts.keys()) {
      if (this.#verdicts.size <= 2 * MOST) break
      if (!heard.has(name)) this.#verdicts.delete(name)
    }
  }

  /** Whether it worked. Each kind of failure is said once, until it works again. */
  async #tried(what: string, work: () => Promise<void>): Promise<boolean> {
    try {
      await work()
      this.#failing.delete(what)
      return true
    } catch (error) {
      if (!this.#failing.has(what) && !this.#rounds.over) this.#of.report(error, what)
      this.#failing.add(what)
      return false
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rounds[Symbol.asyncDispose]()
  }
}

/** What a gateway decides by, as it tells the others. */
function policyOf(
  service: Pick<PolicyService, 'status' | 'trial' | 'verdict'>,
  { gateway, byItself }: { readonly gateway: string; readonly byItself: boolean },
): GatewayPolicy {
  const { revision, seq, bundle_digest, data_digest, activated_at } = service.status()
  const trial = service.trial()?.status
  return {
    gateway,
    revision,
    seq,
    bundle_digest,
    data_digest,
    activated_at,
    by_itself: byItself,
    trial: trial?.state === 'running' ? trialOf(trial) : null,
    verdict: service.verdict(),
  }
}

function trialOf({ mode, digest, revision, percent, label, since }: TrialStatus) {
  return { mode, digest, revision, percent, label, since }
}

/** Compares from now on; undefined where the node shares its store with nobody. */
export function openComparison(
  { gateway, policy: settings }: Pick<Config, 'gateway' | 'policy'>,
  policies: GatewayPolicies | undefined,
  { service, source }: Pick<NodePolicy, 'service' | 'source'>,
  { log, now, report }: Pick<ComparisonRoom, 'log' | 'now' | 'report'>,
): PolicyComparison | undefined {
  if (policies === undefined) return undefined
  const place = { gateway, byItself: source !== undefined }
  return new PolicyComparison({
    policies,
    own: () => policyOf(service, place),
    fall(digest, reason) {
      service.fall(digest, reason).catch((error: unknown) => report(error, 'the end of a canary'))
    },
    log,
    boundMs: (settings?.differ_s ?? DIFFER_S) * 1000,
    now,
    monotonic: () => performance.now(),
    report,
  })
}

/** Rows of an event, which is 32 KiB at most. */
const MAX_TOLD = 32

function eventOf(news: 'differ' | 'alike', rows: readonly GatewayPolicy[]): EventInput {
  const differ = news === 'differ'
  const told = rows.slice(0, MAX_TOLD)
  const over =
    rows.length > 1
      ? 'the gateways decide by one policy again'
      : 'no gateway that decides by another policy is heard of any more'
  return {
    code: 'finding.policy',
    message: differ
      ? `gateways decide by different policies: ${sideBySide(told)}`
      : `${over}: ${sideBySide(told)}`,
    status: differ ? 'failure' : 'success',
    data: {
      finding: differ ? 'policy.differ' : 'policy.alike',
      title: differ
        ? 'Gateways on one store decide by different policies'
        : 'The gateways on one store decide by one policy again',
      detail: {
        gateways: told.map(({ gateway, revision, seq, bundle_digest: digest }) => {
          return { gateway, revision, seq, bundle_sha256: digest }
        }),
      },
    },
  }
}
