/** One OPEN to a device: it must be here and its certificate must still hold; what it says no with becomes words for people. */
import { TunnelClosed, TunnelRefused, type StreamKind, type TunnelStream } from '#tunnel'
import { Refusal } from '../problem.ts'
import { DeviceReportError, readAnswer, type DeviceAnswer } from './observed.ts'
import type { SessionRoom, Target } from './room.ts'

/** How long the agent may take to ask its owner, reach the target and see who accepted. */
const OPEN_TIMEOUT_MS = 10_000

/**
 * Opens a stream on the device of `target`. Throws Refusal: `device.offline` (with the reason, where its certificate no
 * longer holds) or `target.refused` with the agent's own code as its denial.
 */
export async function dialDevice(
  room: Pick<SessionRoom, 'stands'>,
  { presence }: Pick<Target, 'presence'>,
  kind: StreamKind,
  metadata: Uint8Array,
): Promise<TunnelStream> {
  if (presence === undefined)
    throw new Refusal('device.offline', 'the device has no tunnel to this gateway', {
      nextStep: 'wait a moment and connect again; the device dials in by itself',
    })
  // The tunnel outlives the moment it was admitted in: revoked or expired since then is no device of ours.
  const peer = await room.stands(presence.peer)
  if (!peer.ok) {
    void presence.cut(peer.code, peer.message, performance.now())
    throw new Refusal(
      'device.offline',
      `the certificate of the device no longer holds: ${peer.message}`,
      {
        nextStep: 'enrol the device again',
        denials: [{ code: peer.code, msg: peer.message }],
      },
    )
  }
  try {
    return await presence.tunnel.open(kind, metadata, {
      signal: AbortSignal.timeout(OPEN_TIMEOUT_MS),
    })
  } catch (error) {
    if (error instanceof TunnelRefused) throw targetRefused(error)
    if (error instanceof TunnelClosed)
      throw new Refusal('device.offline', 'the tunnel of the device ended', { cause: error })
    throw error
  }
}

/** The agent's codes, for the person who tried. */
const AGENT_SAYS: Readonly<Record<string, string>> = {
  'target.unknown': 'the agent on the device exposes no process of that name',
  'target.unreachable': 'nothing answers at the address the agent has for this process',
  'target.unobserved': 'the agent could not see which program accepted the connection',
  'open.kind': 'the agent on the device exposes that process as another kind',
  'spawn.unavailable': 'the device cannot start a program that ends with its session',
  'spawn.program':
    'the program that the device should start is not there, or is none that it may start',
  'spawn.failed': 'the device could not start the program',
  'agent.memory': 'the device has no memory left for another connection',
  'log.conflict': 'the device found two versions of the gateway’s log and lets nobody in',
  'agent.full': 'as much as may be runs on the device already',
  'lease.spent': 'the time of the session is over',
  'agent.draining': 'the agent is restarting',
  'open.aborted': 'the device did not answer in time',
  'approvers.missing':
    'the device lets nobody in without a grant that its own approvers signed with their passkeys',
  'approvers.statement': 'the device could not read the signed grant',
  'approvers.target': 'what was signed is for another device or process',
  'approvers.time': 'what was signed is not of now, by the clock of the device',
  'approvers.level': 'what was signed allows less than was asked for',
  'approvers.quorum': 'too few of the approvers that the device knows signed this grant',
  'approvers.invalid': 'the device cannot read its approvers, so it lets nobody in',
  'owner.asked': 'the people at the device have been asked and have not answered yet',
  'owner.denied': 'the people at the device said no',
  'owner.silent': 'the people at the device were asked and did not answer',
  'owner.busy': 'the people at the device have too many questions before them',
  'owner.unasked':
    'the people at the device cannot be asked: the device cannot write the question down',
}

const OWNER_STEPS: Readonly<Record<string, string>> = {
  'owner.asked': 'connect again in a moment',
  'owner.denied': 'speak with the plant, then open a new session',
  'owner.unasked':
    'ask the plant to look at the data directory of the agent, which it cannot write to',
  'owner.silent': 'ask the plant to have somebody at the device, then open a new session',
}

/** A refusal of the agent, as the person is told it. */
function targetRefused(error: TunnelRefused): Refusal {
  const detail = AGENT_SAYS[error.code] ?? 'the agent refused the connection'
  return new Refusal('target.refused', `${detail} (${error.code})`, {
    nextStep:
      OWNER_STEPS[error.code] ??
      'ask the plant to check the process on the device: `sallyport agent doctor`',
    denials: [{ code: error.code, msg: detail }],
  })
}

/** What the device says it saw; where it said anything else, the connection is refused and the device named. */
export function saidBy(stream: TunnelStream): DeviceAnswer {
  try {
    return readAnswer(stream.answer)
  } catch (cause) {
    if (!(cause instanceof DeviceReportError)) throw cause
    throw new Refusal('target.refused', cause.message, {
      nextStep:
        'ask the plant whether the agent on the device is Sallyport’s own and of this version',
      denials: [{ code: cause.code, msg: cause.message }],
      cause,
    })
  }
}
