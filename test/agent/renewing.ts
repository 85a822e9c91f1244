/** One renewal of the device in a directory, as the agent makes it. */
import { systemClock } from '#tunnel'
import { DeviceClock } from '../../agent-tunnel/agent/clock.ts'
import { readConfig } from '../../agent-tunnel/agent/config.ts'
import { renew } from '../../agent-tunnel/agent/enrol.ts'
import { Identity, type Pair } from '../../agent-tunnel/agent/identity.ts'

export async function renewOnce(directory: string, system: () => number = Date.now): Promise<Pair> {
  const config = readConfig(directory)
  const identity = new Identity(directory)
  const anchors = identity.anchors(config.rootSha256)
  const [pair] = identity.pairs()
  if (anchors === undefined || pair === undefined) throw new Error('the device has no certificate')
  const clock = new DeviceClock({ monotonic: systemClock, system, dataDir: directory })
  for (const { notBefore } of identity.pairs()) clock.notBefore(notBefore)
  return await renew({ config, clock, identity }, anchors, pair)
}
