/** A gateway in its own process is told to stop: what it lets go on, what it takes no more, and when it leaves. */
import { expect, test } from 'vitest'
import type { Goaway } from '#tunnel'
import { besieged } from '../support/besieged.ts'
import { soon } from '../support/node.ts'
import { Client } from '../support/tunnels.ts'

/** With sessions open and `drain_s: 60`, one of them in use, told to stop. */
async function told() {
  const siege = await besieged({ config: 'drain_s: 60\n' })
  const line = await siege.client.line(siege.session)
  const heard = new Promise<Goaway>((resolve) => (siege.agent.tunnel.onGoaway = resolve))
  siege.signal('SIGTERM')
  return { siege, line, goaway: await soon('the device is told', heard) }
}

test('SIGTERM with drain_s: sessions go on, nothing new comes in, and with the last it leaves with 0', async () => {
  const { siege, line, goaway } = await told()
  await using _ = siege
  expect(goaway).toMatchObject({ code: 'node.draining' })
  line.write('still here')
  await line.until('the echo', ({ text }) => text === 'still here')
  await expect(Client.dial(siege.node)).rejects.toThrow()
  for (const { id } of siege.sessions) await siege.vendor.ask('POST', `/sessions/${id}/end`)
  expect(await soon('the process ends', siege.exited)).toBe(0)
  expect((await siege.agent.tunnel.closed).code).toBe('node.stopping')
  expect(siege.log.filter((text) => /"level":[56]0/.test(text))).toEqual([])
})

test('a second SIGTERM does not wait for the sessions', async () => {
  const { siege, line } = await told()
  await using _ = siege
  line.write('still here')
  await line.until('the echo', ({ text }) => text === 'still here')
  siege.signal('SIGTERM')
  await soon('the process ends', siege.exited)
  await soon('the tunnel ends', siege.agent.tunnel.closed)
})
