/** Looking at what a bundle would do: nothing that changes the policy waits for it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { BUILTIN_BUNDLE } from '#policy'
import type { Decisions } from '../../../gateway/decisions.ts'
import type { Replay } from '../../../gateway/policy/impact.ts'
import { openNodePolicy } from '../../../gateway/policy/open.ts'
import { PolicyService } from '../../../gateway/policy/service.ts'
import { archiveDigest } from '../../../gateway/policy/slots.ts'
import { keyPair, signedArchive } from '../../policy/fixture.ts'

const { key, pem } = keyPair('P-256')
const bundle = (seq: number) => signedArchive({ key, keyId: 'plant', seq })
const ada = { uid: 'ada', party: 'staff' } as const
const NOTHING: Replay = {
  decisions: 0,
  replayed: 0,
  not_replayable: 0,
  turned: [],
  from: null,
  truncated: false,
}
const NOBODY = { sessions: 0, ended: [], narrowed: [], unseen: [] }

test(
  'a replay that does not end holds up no upload, activation or going back',
  { timeout: 120_000 },
  async () => {
    await using undo = new AsyncDisposableStack()
    const directory = mkdtempSync(join(tmpdir(), 'sallyport-preview-'))
    undo.defer(() => rmSync(directory, { recursive: true }))
    const parts = await openNodePolicy(directory, [], undo, { keys: new Map([['plant', pem]]) })
    const service = undo.use(
      await PolicyService.start({
        ...parts,
        builtin: new Uint8Array(readFileSync(BUILTIN_BUNDLE)),
        log: { append: vi.fn() },
        now: Date.now,
        report: vi.fn(),
      }),
    )
    const begun = Promise.withResolvers<void>()
    const over = Promise.withResolvers<Replay>()
    const replay = vi.fn(async () => {
      begun.resolve()
      return await over.promise
    })
    const decisions = {} as unknown as Decisions
    const live = { decisions, replay, preview: async () => NOBODY, withdraw: async () => [] }
    service.serve(live)

    const looking = service.impact(bundle(9), 0)
    await begun.promise
    await expect(service.impact(bundle(9), null)).rejects.toMatchObject({ code: 'policy.busy' })
    const [first, second] = [bundle(1), bundle(2)]
    await service.upload(first, ada, null)
    await service.activate(archiveDigest(first), ada)
    const good = { seq: 1, digest: archiveDigest(first) }
    expect(service.status()).toMatchObject({ last_good: null, can_go_back: false })
    parts.slots.settle(good)
    // What is in force itself is nothing to go back to.
    expect(service.status()).toMatchObject({ last_good: good, can_go_back: false })
    await service.upload(second, ada, null)
    await service.activate(archiveDigest(second), ada)
    expect(service.status()).toMatchObject({ last_good: good, can_go_back: true })
    expect((await service.rollback(ada)).digest).toBe(archiveDigest(first))
    expect(service.status()).toMatchObject({ last_good: good, can_go_back: false })

    over.resolve(NOTHING)
    expect(await looking).toMatchObject({ seq: 9, past: NOTHING, live: { sessions: 0 } })
    expect(await service.impact(bundle(9), 0)).toMatchObject({ past: NOTHING })
    expect(replay).toHaveBeenCalledTimes(2)
  },
)
