/**
 * A gateway in its own process, abused from outside: by strangers, by a device and by a vendor whose
 * credentials are good. Each gets a named answer, fills no log, costs bounded memory, and nobody else
 * loses anything. How fast the others stay is `npm run bench -- abuse`.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { attacks, type Attack } from '../support/abuse.ts'
import { besieged, type Besieged } from '../support/besieged.ts'
import { until } from '../support/node.ts'
import type { Line } from '../support/tunnels.ts'

/** What an attack may add to the memory of the gateway, MiB; a leak of it adds more with each. */
const MEMORY_MIB = 96
const ROUND_TRIPS = 60

let siege: Besieged
let line: Line
beforeAll(async () => {
  siege = await besieged()
  line = await siege.client.line(siege.session)
})
afterAll(async () => siege[Symbol.asyncDispose]())

async function ask(): Promise<void> {
  const wanted = line.total + 8
  line.write('question')
  await until('the answer comes back', () => line.total >= wanted)
}

/** The codes in the gateway's own log since `from`. */
function told(from: number): { readonly code: string; readonly line: string }[] {
  return siege.log.slice(from).flatMap((text) => {
    if (!text.startsWith('{')) return [{ code: 'not JSON', line: text }]
    const { code } = JSON.parse(text) as { code?: string }
    return [{ code: code ?? 'none', line: text }]
  })
}

const named = (heard: readonly string[], from: number) => [
  ...heard,
  ...told(from).map(({ code }) => code),
]

describe.each(attacks.map((attack) => ({ label: `${attack.who}: ${attack.name}`, attack })))(
  '$label',
  ({ attack }: { attack: Attack }) => {
    test('is named, once, and the bystanders notice nothing', async () => {
      const from = siege.log.length
      const before = siege.rss()
      const events = siege.node.size()
      {
        await using attacking = await siege.attack(attack)
        for (let at = 0; at < ROUND_TRIPS; at++) await ask()
        const { code, once = false } = attack
        // What is told once a minute for a source may have been told beside an earlier attack.
        const all = once ? 0 : from
        if (code !== null)
          await until(`${String(code)} among ${named(attacking.heard, all).join(' ')}`, () =>
            named(attacking.heard, all).some((one) => code.test(one)),
          )
      }
      await ask()
      expect(
        told(from).length,
        told(from)
          .map(({ line: text }) => text)
          .join('\n'),
      ).toBeLessThan(20)
      expect(siege.node.size() - events).toBeLessThan(150)
      expect(siege.rss() - before).toBeLessThan(MEMORY_MIB)
      expect(siege.agent.tunnel.draining).toBe(false)
      expect(siege.client.tunnel.draining).toBe(false)
    })
  },
)

test('none of it was a fault of the gateway', () => {
  const faults = siege.log.filter((text) => /"level":[56]0/.test(text) || /^\s+at /.test(text))
  expect(faults).toEqual([])
})
