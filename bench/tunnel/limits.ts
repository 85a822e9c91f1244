/**
 * Loaded before the gateway of the bench (`node --import`), and only there. The built-in policy allows
 * 256 MiB and says nothing about streams and bandwidth, and the host's strict answer to that (10
 * Mbit/s, 8 connections) is what a bench would then measure. Here are the numbers of a site that allows
 * more; every one is still counted, paced and decided as always. On SIGUSR2 garbage is collected, so
 * that memory can be read without it.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { LIFETIMES } from '../../gateway/identity/setting.ts'
import { PolicyEngine } from '../../policy/engine.ts'
import { OBLIGATIONS } from '../../policy/obligations.ts'

const rows: Record<string, { absent: unknown; ceiling?: number }> = OBLIGATIONS
const bandwidth = 1e12
rows['max_bandwidth_bps'] = {
  ...OBLIGATIONS.max_bandwidth_bps,
  absent: bandwidth,
  ceiling: bandwidth,
}
// The zones of the built-in site say 256 MiB (`session_bytes`), and the host stops at 64 GiB: a bench carries more.
const asked = Reflect.get(PolicyEngine.prototype, 'decide') as (
  ...question: Parameters<PolicyEngine['decide']>
) => ReturnType<PolicyEngine['decide']>
PolicyEngine.prototype.decide = function (...question): ReturnType<PolicyEngine['decide']> {
  const decision = asked.apply(this, question)
  return { ...decision, obligations: { ...decision.obligations, max_bytes: 2 ** 50 } }
}
rows['max_streams'] = { ...OBLIGATIONS.max_streams, absent: OBLIGATIONS.max_streams.ceiling }
// A scripted person approves at once; nobody need wait two seconds to ask whether they have.
Object.assign(LIFETIMES, { poll: 0.05 })

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
process.on('SIGUSR2', collect)
