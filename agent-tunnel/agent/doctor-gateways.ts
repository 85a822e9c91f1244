/** What `agent doctor` says of the gateways beside the device's own: whether each would be there if that one were not. */
import { printAddress, systemClock } from '#tunnel'
import { DeviceClock } from './clock.ts'
import type { AgentConfig } from './config.ts'
import { dialGateway } from './connect.ts'
import type { Finding } from './doctor.ts'
import { AgentError, messageOf } from './errors.ts'
import { gatewaysOf } from './gateways.ts'
import type { Identity } from './identity.ts'
import { openIdentity } from './pkcs11.ts'

/**
 * One finding for each, without a tunnel: the device stays where it is. None where the device has no root pinned yet.
 * Never rejects for what it finds.
 */
export async function examineOthers(config: AgentConfig, signal: AbortSignal): Promise<Finding[]> {
  const [, ...others] = gatewaysOf(config)
  const identity = others.length === 0 ? undefined : identityOf(config)
  const anchors = identity?.anchors(config.rootSha256)
  if (identity === undefined || anchors === undefined) return []
  const clock = new DeviceClock({ monotonic: systemClock, dataDir: config.dataDir })
  for (const { notBefore } of identity.pairs()) clock.notBefore(notBefore)
  const time = { now: () => clock.now(), system: () => clock.system() }
  return await Promise.all(
    others.map(async (gateway): Promise<Finding> => {
      const hop = `gateway ${printAddress(gateway)}`
      try {
        const at = { ...config, gateway }
        const { socket, tls } = await dialGateway({
          ...time,
          config: at,
          use: 'est',
          anchors,
          signal,
        })
        socket.destroy()
        const says = `under the pinned root and named as dialled; key exchange ${tls.group ?? 'unknown'}`
        return { hop, verdict: 'ok', says }
      } catch (error) {
        const known = error instanceof AgentError ? { next: error.next, code: error.code } : {}
        return { hop, verdict: 'broken', says: messageOf(error), ...known }
      }
    }),
  )
}

/** Undefined where its key cannot be used: that is a finding of its own. */
function identityOf(config: AgentConfig): Identity | undefined {
  try {
    return openIdentity(config)
  } catch (error) {
    if (error instanceof AgentError && error.code === 'identity.token') return undefined
    throw error
  }
}
