/** What a person reads of gateways side by side: whether they decide alike, and what an activation at one did not do. */
import { expect, test } from 'vitest'
import type { PolicyStatus } from '#api'
import { followLines, gatewaysLines } from '../../cli/policy-gateways.ts'

type Gateways = NonNullable<PolicyStatus['gateways']>

const one: Gateways['items'][number] = {
  gateway: 'gw1',
  here: true,
  revision: 'site-1',
  seq: 1,
  bundle_digest: 'a'.repeat(64),
  data_digest: null,
  activated_at: 1_780_000_000,
  by_itself: false,
  trial: null,
  verdict: null,
}
const two = { ...one, gateway: 'gw2', here: false }
const alike: Gateways = {
  state: 'alike',
  since: null,
  told: false,
  looked_at: 1_780_000_000,
  next_step: null,
  items: [one, two],
}

test('of a gateway that is alone nothing is said', () => {
  expect([gatewaysLines(null), followLines(null)]).toEqual([[], []])
})

test('that they decide alike is said, and that no other is heard of is not the same', () => {
  expect(gatewaysLines(alike).at(-1)).toBe('all of them decide by one policy')
  expect(followLines(alike)).toEqual(['all of them decide by one policy'])
  expect(gatewaysLines({ ...alike, items: [one] }).at(-1)).toBe('no other gateway is heard of')
})

test('a difference is said with since when, what to do, and whom an activation left as they were', () => {
  const none = { ...two, revision: null, seq: null, bundle_digest: null }
  const differ: Gateways = {
    ...alike,
    state: 'differ',
    since: 1_780_000_000,
    next_step: 'push it there',
    items: [one, none, { ...one, gateway: 'gw3', here: false }],
  }
  const verdict = [
    'THEY DIFFER, since 2026-05-28T20:26:40Z: the same question may be answered otherwise at another gateway',
    'next: push it there',
  ]
  expect(gatewaysLines(differ).slice(-2)).toEqual(verdict)
  expect(gatewaysLines(differ)[2]).toMatch(/^gw2 +none: all is denied +- +- /)
  expect(followLines(differ)).toEqual([
    'gateway gw2 was not changed: it decides by no policy',
    ...verdict,
  ])
})

test('what is not known is not called alike, with what to look at', () => {
  const lines = gatewaysLines({ ...alike, state: 'unknown', looked_at: null, items: [one] })
  expect(lines.slice(-2)).toEqual([
    'what the other gateways decide by is not known: the store they share has not been read yet',
    expect.stringMatching(/^next: parts\.shared_store of \/healthz/),
  ])
})

test('trials stand beside each other, and whose ended by itself, with why; no text moves the cursor', () => {
  const digest = 'b'.repeat(64)
  const trial = { digest, revision: 'site-2', percent: 5, label: null, since: 1 }
  const verdict = { digest, revision: 'site-2', reason: 'too\u001b many', at: 1_000 }
  const lines = gatewaysLines({
    ...alike,
    items: [
      { ...one, trial: { ...trial, mode: 'canary' } },
      { ...two, trial: { ...trial, mode: 'canary', label: 'ring=test' }, verdict },
      { ...two, gateway: 'gw3', trial: { ...trial, mode: 'shadow' } },
    ],
  })
  expect(lines.slice(1, 4)).toEqual([
    expect.stringMatching(/^gw1 \(asked\) .* site-2, 5 %$/),
    expect.stringMatching(/^gw2 .* site-2, ring=test$/),
    expect.stringMatching(/^gw3 .* site-2, shadow$/),
  ])
  expect(lines.at(-1)).toBe(
    'gateway gw2 took site-2 off trial by itself, 1970-01-01T00:00:01Z: too<001b> many',
  )
})
