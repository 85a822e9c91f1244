/** Why no session is opened, in words and in the log. A vendor is told nothing of what no grant of theirs names. */
import { CATALOGUE, type Decision, type Input, type Partially } from '#policy'
import { toRefusal } from '../decisions.ts'
import { usesOf, type Process } from '../devices/device.ts'
import { actorOf, srcOf } from '../events.ts'
import { clientFacts, type Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { Refusal } from '../problem.ts'
import { sessionFacts, type SessionRoom, type Target } from './room.ts'

export interface OpenRequest {
  readonly subject: Subject
  readonly source: Source
  readonly device: string
  readonly process: string
  readonly grant?: string | undefined
  /** What the client can do with it; absent, whatever it is. */
  readonly uses?: readonly string[] | undefined
}

/** A yes at the device opens one session: somebody was faster with this one. */
export function takenBefore(): Refusal {
  const { msg, next: nextStep } = CATALOGUE['consent.missing']
  return new Refusal('policy.denied', msg, {
    nextStep,
    denials: [{ code: 'consent.missing', msg }],
  })
}

/** Nobody asked for access yet: it was asked for in a way that could not be used, and that is no denial. */
export function misuseOf(
  { device, process, uses }: OpenRequest,
  { kind }: Process,
): Refusal | undefined {
  const ways = usesOf(kind)
  if (uses === undefined || ways.some((way) => uses.includes(way))) return undefined
  const how = ways.includes('spawn') ? 'is a program that is started' : `is reached by ${ways[0]}`
  return new Refusal('process.kind', `${device}/${process} ${how}, and its kind is ${kind}`)
}

export function away(island: boolean): Refusal {
  if (!island)
    return new Refusal('device.offline', 'the device has no tunnel to this gateway', {
      nextStep: 'ask the plant whether the device is running and its network is up',
    })
  const { msg, next: nextStep } = CATALOGUE['device.island']
  return new Refusal('device.offline', msg, {
    nextStep,
    denials: [{ code: 'device.island', msg }],
  })
}

/**
 * What policy allows without a grant (standing access) opens nothing: a session stands on a grant, from which its end, its
 * bytes and who answers for it come. `policy why` shows what allowed it.
 */
export function grantless(
  room: SessionRoom,
  { decision_id: decisionId, revision }: Decision,
): Refusal {
  const { remedy, next } = CATALOGUE['grant.none']
  const msg = 'policy would let you in, and a session takes a grant that is live: you hold none'
  const nextStep = room.decisions.nextStep('grant.none') ?? next
  const denials = [{ code: 'grant.none', msg, remedy, next_step: nextStep }]
  const more = { nextStep, denials, decisionId, revision: revision ?? undefined }
  return new Refusal('policy.denied', msg, more)
}

/**
 * Without a grant a vendor gets the same answer for what exists and what does not: policy decides
 * on what is known, and of its denials only the one that tells nothing about the plant is shown.
 */
export async function unknownTarget(
  room: SessionRoom,
  request: OpenRequest,
  target: Target | undefined,
): Promise<Refusal> {
  const { subject, device, process, source } = request
  if (subject.party !== 'vendor' && target === undefined)
    return await refused(
      room,
      request,
      new Refusal('target.unknown', `no process ${device}/${process} is registered`, {
        nextStep: 'see `sallyport device list` and `sallyport process list`',
      }),
    )
  const facts: Partially<Input> =
    target === undefined
      ? { subject, client: clientFacts(source), device: { id: device }, process: { id: process } }
      : sessionFacts(subject, source, { ...target, consent: null }, [], null)
  const decision = room.decisions.ask('session.open', facts)
  const { msg, remedy } = CATALOGUE['grant.none']
  const next = room.decisions.nextStep('grant.none')
  const denials = [{ code: 'grant.none', msg, remedy, ...(next === undefined ? {} : { next }) }]
  return await refused(room, request, toRefusal({ ...decision, denials }))
}

export async function refused(
  room: SessionRoom,
  request: OpenRequest,
  refusal: Refusal,
): Promise<Refusal> {
  await room.log.append({
    code: 'session.deny',
    message: `session to ${request.device}/${request.process} refused: ${refusal.shownCode}`,
    status: 'failure',
    disposition: 'blocked',
    reason: refusal.shownCode,
    actor: actorOf(request.subject),
    src: srcOf(request.source),
    device: request.device,
    process: request.process,
    grant: request.grant,
    decisions:
      refusal.decisionId === undefined
        ? undefined
        : [
            {
              id: refusal.decisionId,
              revision: refusal.revision ?? 'host',
              codes: refusal.denials.map(({ code }) => code),
            },
          ],
  })
  return refusal
}

export function noRoom(cause?: unknown): Refusal {
  return new Refusal('log.unavailable', 'the log cannot take a new session, so none is opened', {
    cause,
    nextStep: 'tell the platform owner: the disk of the gateway needs room',
  })
}

/** Policy asks for what nobody here could keep. */
export function unable(missing: string, { decision_id: decisionId }: Decision): Refusal {
  const msg = `policy asks for ${missing}, which this gateway cannot do`
  return new Refusal('policy.denied', msg, {
    decisionId,
    denials: [{ code: 'obligation.unsupported', msg }],
    nextStep: 'ask the security engineer to lift the obligation',
  })
}

export function tooMany(): Refusal {
  return new Refusal('session.limit', 'as many sessions are open already as may be at once', {
    nextStep: 'end one of them: sallyport sessions lists them',
  })
}
