/** Who answers what was dialled, within the deadline, or why a stream to it is not opened. */
import { Refused } from './ask.ts'
import type { LineRoom } from './line.ts'
import { endpoint } from './scope/address.ts'
import type { FourTuple } from './scope/address.ts'
import type { Sighting, Unobserved } from './scope/owner.ts'
import { maybeThisMachine } from './scope/own.ts'
import { isBeside } from './target.ts'
import type { Dialled } from './target.ts'

/** A look at the processes takes milliseconds; one that has not come back by then never will. */
export const LOOK_TIMEOUT_MS = 10_000

/** The next step where the kernel sends on what is dialled: kube-proxy's services, the published ports of a container. */
const TRANSLATED = "where addresses are translated, dial the container's own"

const UNOBSERVED: Readonly<Record<Unobserved, string>> = {
  not_accepted: 'no process accepted the connection in time',
  elsewhere: `no process of this machine accepted the connection; is it a "lan" target? ${TRANSLATED}`,
  unsettled: 'the processes that own the connection kept changing, or are too many',
}

/** Rejects with Refused `target.unobserved`, or with the signal's reason. */
export async function observe(
  { scope, acceptDeadlineMs, clock }: LineRoom,
  dialled: FourTuple,
  cancelled: AbortSignal,
): Promise<Sighting> {
  // A look may hang in the kernel (a program on a file system that no longer answers).
  const { promise: hung, reject } = Promise.withResolvers<never>()
  const cancel = clock.after(acceptDeadlineMs + LOOK_TIMEOUT_MS, () =>
    reject(new Refused('target.unobserved', 'the processes of this device cannot be looked at')),
  )
  try {
    const looking = scope.observeAccepted(dialled, acceptDeadlineMs, cancelled)
    const seen = await Promise.race([looking, hung])
    if (seen.ok) return seen.sighting
    if (dialled.transport === 'udp' && seen.why === 'elsewhere')
      throw new Refused('target.unreachable', 'no process of this machine is bound to that port')
    throw new Refused('target.unobserved', UNOBSERVED[seen.why])
  } finally {
    cancel()
  }
}

/** A target beside this machine that is this machine would get around the observation. Throws Refused. */
export function assertBeside(process: string, target: Dialled): void {
  if (!isBeside(target) || !maybeThisMachine(target.endpoint.address)) return
  const here = target.kind === 'lan' ? 'tcp' : 'udp'
  throw new Refused(
    'target.unreachable',
    `the ${target.kind} target ${process} is this machine itself; write "${here}"; ${TRANSLATED}`,
  )
}

/** Both ends of a connected socket; undefined where it has none any more. */
export function endsOf(
  local: { readonly address: string; readonly port: number } | undefined,
  remote: { readonly address: string; readonly port: number } | undefined,
): FourTuple | undefined {
  const [one, other] = [local, remote].map((end) => endpoint(end?.address ?? '', end?.port ?? 0))
  return one === undefined || other === undefined ? undefined : { local: one, remote: other }
}
