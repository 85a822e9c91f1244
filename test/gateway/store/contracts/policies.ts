/** What whoever keeps what gateways decide by must do: each says its own for a while, and all hear it. */
import { describe, expect, test } from 'vitest'
import type { GatewayPolicy } from '#api'
import type { GatewayPolicies } from '../../../../gateway/policy/gateways.ts'
import { until } from '../../../support/patience.ts'
import { NOW, type Make } from './make.ts'

export function policyOfGateway(gateway: string, more: Partial<GatewayPolicy> = {}): GatewayPolicy {
  return {
    gateway,
    revision: 'site-1 ü☃"',
    seq: 1,
    bundle_digest: 'a'.repeat(64),
    data_digest: null,
    activated_at: NOW,
    by_itself: false,
    trial: null,
    verdict: null,
    ...more,
  }
}

/** Longer than any row runs. */
const LONG_MS = 3_600_000

export function gatewayPolicyContract(name: string, make: Make<GatewayPolicies>): void {
  describe(`${name} as a place where gateways say what they decide by`, () => {
    const verdict = { digest: 'b'.repeat(64), revision: 'r', reason: 'x', at: NOW * 1000 }
    const trial = { mode: 'canary', digest: 'b'.repeat(64), revision: 'r', percent: 2.5 } as const
    const names = (rows: readonly GatewayPolicy[]) => rows.map(({ gateway }) => gateway)

    test('gives back what each said last, by name', async () => {
      const store = await make()
      expect(await store.list()).toEqual([])
      const tries = { ...trial, label: 'ring=ü', since: NOW }
      const [one, two] = [
        policyOfGateway('gw1', { trial: tries, verdict }),
        policyOfGateway('gw2', { revision: null, seq: null, bundle_digest: null }),
      ]
      for (const row of [two, policyOfGateway('gw1'), one])
        expect(await store.say(row, LONG_MS, 9)).toBe(true)
      expect(await store.list()).toEqual([one, two])
    })
    test('hears no more of who says nothing for as long as it was said for', async () => {
      const store = await make()
      await store.say(policyOfGateway('gw1'), LONG_MS, 9)
      await store.say(policyOfGateway('gw2'), 1, 9)
      await until('its time is over', async () => names(await store.list()).join(' ') === 'gw1')
      await store.say(policyOfGateway('gw2'), LONG_MS, 9)
      expect(names(await store.list())).toEqual(['gw1', 'gw2'])
    })
    test('holds no more others than may be, and one that is over makes room', async () => {
      const store = await make()
      const say = async (gateway: string, ttlMs = LONG_MS) =>
        await store.say(policyOfGateway(gateway), ttlMs, 2)
      for (const gateway of ['a', 'b', 'c']) expect(await say(gateway)).toBe(true)
      expect([await say('d'), await say('a')]).toEqual([false, true])
      expect(names(await store.list())).toEqual(['a', 'b', 'c'])
      await say('b', 1)
      await until('there is room', async () => await say('d'))
      expect(names(await store.list())).toEqual(['a', 'c', 'd'])
    })
  })
}
