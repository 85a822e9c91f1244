/** A policy service that tries a bundle, for tests: what it logs, and whom it decides again. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished, vi } from 'vitest'
import type { EventInput } from '#audit'
import { BUILTIN_BUNDLE, inputFor, type Decision, type Input } from '#policy'
import type { Decisions } from '../../../gateway/decisions.ts'
import { openNodePolicy } from '../../../gateway/policy/open.ts'
import { PolicyService } from '../../../gateway/policy/service.ts'
import { archiveDigest, PolicySlots } from '../../../gateway/policy/slots.ts'
import { keyPair, signedArchive } from '../../policy/fixture.ts'

export const decision = (allow: boolean, code: string, more: Partial<Decision> = {}): Decision => ({
  v: 1,
  effect: allow ? 'allow' : 'deny',
  allow,
  reasons: allow ? [{ code }] : [],
  denials: allow ? [] : [{ code, msg: 'no' }],
  obligations: {
    max_duration_s: 60,
    not_after: 1,
    idle_timeout_s: 1,
    reeval_after_s: 1,
    max_bandwidth_bps: 1,
    max_bytes: 1,
    max_streams: 1,
    ot_level: 1,
    approvals: 1,
    record: true,
    justification: true,
    supervise: true,
    notify: true,
    ot_each: true,
    processes: [],
    methods: [],
    ot_windows: [],
  },
  decision_id: 'd_1',
  revision: 'r',
  data_digest: null,
  layer: 'rego',
  arm: 'active',
  eval_us: null,
  ...more,
})
export const asking = (person: string, labels: Record<string, string> = {}): Input =>
  inputFor('session.open', {
    subject: { id: person, email: `${person}@press.example` },
    device: { id: 'press-07', zone: 'default', labels },
  })

/** What several services are to try: one bundle, by one who signs. */
export function oneBundle() {
  const { key, pem } = keyPair('P-256')
  return { pem, bundle: signedArchive({ key, keyId: 'plant', seq: 1 }) }
}

const ada = { uid: 'ada', party: 'staff' } as const

/** A service with what it decided for: the codes it logged, and whom it decided again. */
export async function serving(
  append: (event: EventInput) => void = () => undefined,
  { pem, bundle } = oneBundle(),
) {
  const undo = new AsyncDisposableStack()
  onTestFinished(async () => await undo.disposeAsync())
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-trial-'))
  undo.defer(() => rmSync(directory, { recursive: true }))
  const parts = await openNodePolicy(directory, [], undo, { keys: new Map([['plant', pem]]) })
  const written: EventInput[] = []
  const log = {
    append: async (event: EventInput) => {
      append(event)
      return { idx: written.push(event), uid: 'u', leaf: '' }
    },
  }
  const report = vi.fn<(error: unknown, what: string) => void>()
  const builtin = new Uint8Array(readFileSync(BUILTIN_BUNDLE))
  const service = undo.use(
    await PolicyService.start({ ...parts, builtin, log, now: Date.now, report }),
  )
  const decisions: Pick<Decisions, 'question' | 'trial'> = {} as unknown as Decisions
  const withdraw = vi.fn(async () => [])
  const live = {
    decisions,
    replay: vi.fn(),
    preview: async () => ({ sessions: 0, ended: [], narrowed: [], unseen: [] }),
    withdraw,
  }
  service.serve(live as unknown as Parameters<PolicyService['serve']>[0])
  await service.upload(bundle, ada, null)
  const trying = async (mode: 'shadow' | 'canary') => {
    await service.try(archiveDigest(bundle), mode, { percent: 100, label: null }, ada)
    withdraw.mockClear()
  }
  const rolled = () => written.filter(({ code }) => code === 'policy.rollback')
  return {
    service,
    /** What a start reads in its folder. */
    kept: () => PolicySlots.open(directory).state,
    log,
    decisions,
    withdraw,
    report,
    digest: archiveDigest(bundle),
    trying,
    rolled,
  }
}
