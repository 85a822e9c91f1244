/** Tokens and what becomes of their certificates: shape and limits, rebinding, and revocation that is logged before it holds. */
import { describe, expect, test } from 'vitest'
import { newToken, rebindToken, record, revoke, type CaEvent } from '#ca'
import { newKey, random, TENANT } from './support.ts'
import { draft, here, now, oneCa } from './drafts.ts'

oneCa()

test('revocation is logged before it holds, and does not happen without a log', async () => {
  const recorded = await record(draft(), here.bench.store)
  const target = { serial: recorded.row.serial }
  const dead = { store: here.bench.store, log: () => Promise.reject(new Error('full')) }
  const request = { tenant: TENANT, reason: 'keyCompromise', now } as const
  await expect(revoke(target, request, dead)).rejects.toMatchObject({ code: 'log.unavailable' })
  expect((await here.bench.store.findCertificate(target.serial))?.state).toBe('intent')
  const events: CaEvent[] = []
  const desk = { store: here.bench.store, log: async (event: CaEvent) => void events.push(event) }
  expect((await revoke(target, request, desk)).serials).toEqual([target.serial])
  expect(events).toMatchObject([{ code: 'cert.revoke', target, reason: 'keyCompromise' }])
})

/** Revocation as the gateway has it: whom it ended, in order. */
function ending() {
  const { store } = here.bench
  const ended: string[] = []
  const end = async (serial: string) => {
    ended.push(serial)
    await store.revoke(TENANT, { serial }, 'superseded', now)
  }
  return { store, ended, desk: { store, end } }
}
async function used() {
  const options = { tenant: TENANT, device: 'press-07', lifetimeSeconds: 60, now, random }
  const { row } = await newToken(options, here.bench.store)
  const recorded = (await record(draft(newKey(), { tokenId: row.id }), here.bench.store)).row
  return { token: (await here.bench.store.findToken(TENANT, row.hash))!, recorded }
}
const rebinding = { lifetimeSeconds: 60, now } as const

describe('rebinding a token ends nothing', () => {
  test('whose certificate a tunnel was opened with', async () => {
    const { token, recorded } = await used()
    const { serial } = recorded
    const { store, ended, desk } = ending()
    await store.complete(recorded, Uint8Array.of(1), serial.padEnd(64, 'c'))
    await store.proven(serial, now)
    expect(await rebindToken(token, rebinding, desk)).toBe('in use')
    expect(ended).toEqual([])
  })

  test('whose certificate was renewed, before any tunnel', async () => {
    const { token, recorded } = await used()
    const { serial } = recorded
    const { store, ended, desk } = ending()
    await store.complete(recorded, Uint8Array.of(1), serial.padEnd(64, 'c'))
    const next = await record(draft(newKey(), { parent: serial }), store)
    await store.complete(next.row, Uint8Array.of(2), next.row.serial.padEnd(64, 'd'))
    expect(await rebindToken(token, rebinding, desk)).toBe('in use')
    expect(ended).toEqual([])
  })

  test('that was revoked with its device', async () => {
    const { token } = await used()
    const { store, ended, desk } = ending()
    await store.revoke(TENANT, { device: 'press-07' }, 'superseded', now)
    const after = (await store.findToken(TENANT, token.hash))!
    expect(await rebindToken(after, rebinding, desk)).toBe('revoked')
    expect(ended).toEqual([])
  })
})

test('a rebinding that died after the revocation is done again, and revokes nothing twice', async () => {
  const { token, recorded } = await used()
  const { serial } = recorded
  const { store, ended, desk } = ending()
  const bent = {
    store: {
      findCertificate: (id: string) => store.findCertificate(id),
      listCertificates: (...args: Parameters<typeof store.listCertificates>) =>
        store.listCertificates(...args),
      rebindToken: () => Promise.reject(new Error('cut')),
    },
    end: desk.end,
  }
  await expect(rebindToken(token, rebinding, bent)).rejects.toMatchObject({
    code: 'store.unavailable',
  })
  expect((await store.findToken(TENANT, token.hash))?.binding?.serial).toBe(serial)
  expect(await rebindToken(token, rebinding, desk)).toBe(undefined)
  expect(ended).toEqual([serial])
})

test('tokens: shape, limits, rebinding', async () => {
  const options = { tenant: TENANT, device: 'press-07', lifetimeSeconds: 60, now, random }
  const { text, row } = await newToken(options, here.bench.store)
  expect(text).toMatch(/^spt_[0-9a-hjkmnp-tv-z]{32}$/)
  expect(row.id).toMatch(/^t_[0-9a-hjkmnp-tv-z]{26}$/)
  expect(JSON.stringify(row)).not.toContain(text)
  for (const change of [
    { lifetimeSeconds: 59 },
    { lifetimeSeconds: NaN },
    { device: 'A' },
    { tenant: 'x' },
  ])
    await expect(newToken({ ...options, ...change }, here.bench.store)).rejects.toMatchObject({
      code: 'profile',
    })
  const { store, ended, desk } = ending()
  const request = { lifetimeSeconds: 60, now }
  expect(await rebindToken(row, request, desk)).toBe('unused')
  const first = await record(draft(newKey(), { tokenId: row.id }), here.bench.store)
  const bound = (await here.bench.store.findToken(TENANT, row.hash))!
  expect(await rebindToken(bound, request, desk)).toBe(undefined)
  expect(ended).toEqual([first.row.serial])
  expect((await store.findCertificate(first.row.serial))?.state).toBe('revoked')
  await record(draft(newKey(), { tokenId: row.id }), here.bench.store)
})
