/** The policy of a node, without the node: what comes by itself, what did not come, what is past its age. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { BUILTIN_BUNDLE, PolicyError, type Decision, type Staleness } from '#policy'
import type { Decisions } from '../../../gateway/decisions.ts'
import { openNodePolicy } from '../../../gateway/policy/open.ts'
import { PolicyService } from '../../../gateway/policy/service.ts'
import type { Foreseen } from '../../../gateway/sessions/foresee.ts'
import { archiveDigest } from '../../../gateway/policy/slots.ts'
import { readTar } from '../../../policy/tar.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import {
  archive as shipped,
  handmade,
  keyPair,
  signedArchive,
  withoutVectors,
} from '../../policy/fixture.ts'

const { key, pem } = keyPair('P-256')
const bundle = (seq: number, changes?: Record<string, Uint8Array | null>) =>
  signedArchive({ key, keyId: 'plant', seq }, changes)
const ada = { uid: 'ada', party: 'staff' } as const
const NOBODY = { sessions: 0, ended: [], narrowed: [], unseen: [] }

async function serviceWith(undo: AsyncDisposableStack, staleness?: Staleness) {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-service-'))
  undo.defer(() => rmSync(directory, { recursive: true }))
  const keys = new Map([['plant', pem]])
  const parts = await openNodePolicy(directory, [], undo, { keys, staleness })
  const builtin = new Uint8Array(readFileSync(BUILTIN_BUNDLE))
  const [log, report] = [{ append: vi.fn() }, vi.fn()]
  const service = undo.use(
    await PolicyService.start({ ...parts, builtin, log, now: Date.now, report }),
  )
  return { service, parts, log, report }
}

/** The product's rules, issued so long before the base inputs that they are past their age there. */
function overAge(seq: number): Uint8Array<ArrayBuffer> {
  const manifest = JSON.parse(new TextDecoder().decode(readTar(shipped).get('.manifest'))) as {
    metadata: { sallyport: { issued_at: number; max_age_s: number } }
  }
  manifest.metadata.sallyport.issued_at = 1
  manifest.metadata.sallyport.max_age_s = 60
  const text = new TextEncoder().encode(JSON.stringify(manifest))
  return bundle(seq, { ...withoutVectors(), '.manifest': text })
}

test('a bundle of the source that failed to come into force does so at the next look', async () => {
  await using undo = new AsyncDisposableStack()
  const { service, parts } = await serviceWith(undo)
  const archive = bundle(1)
  const full = Object.assign(new Error('no space left'), { syscall: 'write' })
  const promote = vi.spyOn(parts.slots, 'promote').mockImplementationOnce(() => {
    throw full
  })
  await expect(service.take(archive, 'drop')).rejects.toMatchObject({ code: 'log.unavailable' })
  expect(service.status()).toMatchObject({ seq: 0, candidate: { by: 'source drop' } })
  await service.take(archive, 'drop')
  expect(service.status()).toMatchObject({ seq: 1, candidate: null, last_failure: null })
  // It is in force: another look brings nothing.
  await service.take(archive, 'drop')
  expect(promote).toHaveBeenCalledTimes(2)
})

test('what cannot be made to decide here is not kept for the next start either', async () => {
  await using undo = new AsyncDisposableStack()
  const { service, parts, log } = await serviceWith(undo)
  const archive = bundle(1)
  await service.upload(archive, ada, null)
  vi.spyOn(parts.engine, 'ready').mockImplementationOnce(() => {
    throw new PolicyError('module.invalid', 'memory has run out')
  })
  const digest = archiveDigest(archive)
  await expect(service.activate(digest, ada)).rejects.toMatchObject({ code: 'policy.bundle' })
  expect(parts.slots.read('active')).toBeNull()
  expect(service.status()).toMatchObject({
    seq: 0,
    high_water: 0,
    candidate: { digest },
    last_failure: { code: 'module.invalid' },
  })
  expect(log.append).toHaveBeenLastCalledWith(expect.objectContaining({ status: 'failure' }))
  await service.activate(digest, ada)
  expect(service.status()).toMatchObject({ seq: 1, high_water: 1, last_failure: null })
})

test('what a person has uploaded is not brought into force by a source that has it too', async () => {
  await using undo = new AsyncDisposableStack()
  const { service } = await serviceWith(undo)
  const archive = bundle(1)
  await service.upload(archive, ada, null)
  await service.take(archive, 'drop')
  expect(service.status()).toMatchObject({ seq: 0, candidate: { by: 'ada' } })
})

test('what came by itself does not come into force while open sessions cannot be looked up: it waits, and is tried again', async () => {
  await using undo = new AsyncDisposableStack()
  const { service } = await serviceWith(undo)
  const lost = { id: 's_1', device: 'press-07', process: 'plc', subject: { email: 'ada' } }
  const away = { ...NOBODY, sessions: 1, unseen: [lost] } as unknown as Foreseen
  const preview = vi.fn(async () => NOBODY as Foreseen)
  const withdraw = vi.fn(async () => [])
  service.serve({ decisions: {} as unknown as Decisions, replay: vi.fn(), preview, withdraw })
  const first = bundle(1, withoutVectors())
  preview.mockResolvedValueOnce(away)
  await expect(service.take(first, 'drop')).rejects.toMatchObject({ code: 'store.unavailable' })
  expect(service.status()).toMatchObject({ seq: 0, candidate: { by: 'source drop' } })
  // It is there already, and those who are in are looked at again all the same.
  preview.mockResolvedValueOnce(away)
  await expect(service.take(first, 'drop')).rejects.toMatchObject({ code: 'store.unavailable' })
  expect([service.status().seq, withdraw.mock.calls.length]).toEqual([0, 0])
  await service.take(first, 'drop')
  expect(service.status()).toMatchObject({ seq: 1, candidate: null })
  // A person is shown whom it could not look at, and decides.
  const second = bundle(2, withoutVectors())
  preview.mockResolvedValueOnce(away)
  expect((await service.upload(second, ada, null)).live.unseen).toHaveLength(1)
  await service.activate(archiveDigest(second), ada)
  expect(service.status().seq).toBe(2)
})

test('what the change before cut is not told as what this one did, whose cuts did not come to their end', async () => {
  await using undo = new AsyncDisposableStack()
  const { service } = await serviceWith(undo)
  const withdraw = vi.fn(async () => [])
  const decisions = {} as unknown as Decisions
  service.serve({ decisions, replay: vi.fn(), preview: async () => NOBODY, withdraw })
  await service.take(bundle(1, withoutVectors()), 'drop')
  const change = { revision: service.status().revision, sessions: 0 }
  expect(service.status().last_cuts).toMatchObject(change)
  withdraw.mockRejectedValueOnce(new Error('the log is full'))
  await expect(service.take(bundle(2, withoutVectors()), 'drop')).rejects.toThrow('the log is full')
  expect(service.status()).toMatchObject({ seq: 2, last_cuts: null })
})

test('what is in force takes the place of nothing that waits', async () => {
  await using undo = new AsyncDisposableStack()
  const { service, log } = await serviceWith(undo)
  const [first, second] = [bundle(1), bundle(2)]
  expect(await service.upload(first, ada, null)).toMatchObject({ in_force: false })
  await service.activate(archiveDigest(first), ada)
  await service.upload(second, ada, null)
  const before = log.append.mock.calls.length
  // The same number again, with the past asked for: it is not looked at either.
  const again = await service.upload(first, ada, 0)
  expect(again).toMatchObject({ seq: 1, in_force: true, past: null, past_unread: null })
  expect(service.status().candidate).toMatchObject({ digest: archiveDigest(second) })
  expect(log.append.mock.calls.length).toBe(before)
})

test('what came by itself and does not end is looked at once, until somebody asks for another look', async () => {
  await using undo = new AsyncDisposableStack()
  const { service, parts, log } = await serviceWith(undo)
  const decisions = {} as unknown as Decisions
  const live = { decisions, replay: vi.fn(), preview: async () => NOBODY, withdraw: async () => [] }
  service.serve(live)
  const endless = bundle(1, {
    ...withoutVectors(),
    'policy.wasm': handmade({ evaluation: 'loop' }),
  })
  const look = () => service.take(endless, 'drop').catch((error: unknown) => error)
  const first = await look()
  expect(first).toMatchObject({ code: 'policy.bundle', shownCode: 'bundle.loops' })
  // The very refusal: nobody looked.
  expect(await look()).toBe(first)
  service.forgive()
  const second = await look()
  expect(second).toMatchObject({ shownCode: 'bundle.loops' })
  expect(second).not.toBe(first)
  expect(parts.slots.state.waiting).toBeNull()
  expect(log.append).toHaveBeenCalledTimes(1)
  // Another one is looked at, and what a person brings is looked at for them.
  await service.take(bundle(2), 'drop')
  expect(service.status()).toMatchObject({ seq: 2, last_failure: null })
})

test('what was to come into force and was refused is in the status until something comes', async () => {
  await using undo = new AsyncDisposableStack()
  const { service } = await serviceWith(undo)
  const unknown = signedArchive({ key: keyPair('P-256').key, keyId: 'plant', seq: 1 })
  await expect(service.take(unknown, 'drop')).rejects.toMatchObject({ code: 'policy.bundle' })
  const { last_failure: failure } = service.status()
  expect(failure?.code).toBe('bundle.signature')
  // Somebody who only looks changes nothing of that.
  await expect(service.impact(new Uint8Array(1024), null)).rejects.toThrow()
  expect(service.status().last_failure).toEqual(failure)
  await service.take(bundle(2), 'drop')
  expect(service.status()).toMatchObject({ seq: 2, last_failure: null })
})

test('a decision log that cannot be read takes nothing from what is said of those who are in', async () => {
  await using undo = new AsyncDisposableStack()
  const { service, report } = await serviceWith(undo)
  const bases = await baseInputs()
  const decisions = { question: () => bases['session.reevaluate'] } as unknown as Decisions
  const replay = vi.fn(async () => await Promise.reject(new Error('EIO /data/decisions')))
  const preview = async () => ({ ...NOBODY, sessions: 3 })
  service.serve({ decisions, replay, preview, withdraw: async () => [] })
  const unread = { past: null, past_unread: 'the decision log could not be read' }
  expect(await service.impact(bundle(1), 0)).toMatchObject({ ...unread, live: { sessions: 3 } })
  expect(await service.upload(bundle(1), ada, 0)).toMatchObject(unread)
  expect(report).toHaveBeenCalledTimes(2)
  // Nobody asked for the past: nothing is wrong with it.
  expect(await service.impact(bundle(1), null)).toMatchObject({ past: null, past_unread: null })
  // What the candidate itself fails at is its own fault still.
  replay.mockRejectedValueOnce(new PolicyError('bundle.loops', 'past decision 1'))
  await expect(service.impact(bundle(1), 0)).rejects.toMatchObject({ code: 'policy.bundle' })
})

/** What a bundle past its age says to a question the product's rules allow, as a node with this rule asks it. */
async function said(staleness: Staleness) {
  await using undo = new AsyncDisposableStack()
  const { service } = await serviceWith(undo, staleness)
  const bases = await baseInputs()
  const decisions = { question: () => bases['session.reevaluate'] } as unknown as Decisions
  let foreseen: readonly Decision[] = []
  service.serve({
    decisions,
    replay: vi.fn(),
    preview: async (decide) => {
      foreseen = await decide([{}])
      return NOBODY
    },
    withdraw: async () => [],
  })
  const old = overAge(1)
  await service.upload(old, ada, null)
  await service.try(archiveDigest(old), 'canary', { percent: 100, label: null }, ada)
  const given = { ...foreseen[0], allow: true } as Decision
  const answered = decisions.trial?.answer('session.open', bases['session.open'], given)
  return {
    foreseen: foreseen.map(({ denials }) => denials.map(({ code }) => code)),
    answered: answered?.denials.map(({ code }) => code),
  }
}

test('past its age a bundle is foreseen, and tried, by the rule of the node for that', async () => {
  expect(await said('deny_all')).toEqual({
    foreseen: [['policy.stale']],
    answered: ['policy.stale'],
  })
  expect(await said('deny_new')).toEqual({ foreseen: [[]], answered: ['policy.stale'] })
  expect(await said('warn')).toEqual({ foreseen: [[]], answered: [] })
})
