/**
 * What a grant that names Modbus addresses, asks to write, limits its uses, or is sealed must be like. Pure: the grants a person holds and the
 * instant are arguments.
 */
import { areWindows, type Statement } from '#approval'
import { Refusal } from '../problem.ts'
import { beginsAt, expiresAt, shownState, type Grant } from './grant.ts'
import { MOST_WRITES } from './store.ts'
import { during } from './window.ts'

/** Why these addresses are none that can be asked for, or undefined. */
export function addressFault({
  ot_level: level,
  ot_windows: windows,
}: {
  readonly ot_level: number
  readonly ot_windows?: unknown
}): Refusal | undefined {
  if (windows === undefined)
    return level < 2
      ? undefined
      : new Refusal('grant.addresses', 'a grant to write names the addresses that are written', {
          nextStep: 'sallyport request … --write --addresses UNIT:FROM-TO',
        })
  if (level === 0)
    return new Refusal('grant.addresses', 'a grant that neither reads nor writes has no addresses')
  if (areWindows(windows)) return undefined
  return new Refusal(
    'grant.addresses',
    'addresses are 1 to 16 windows of a unit from 1 to 247, or 255, from one address of 0 to 65535 to another that is no lower',
    { nextStep: 'unit 0 is every unit at once, and is never written' },
  )
}

/** Why these counts are none that can be asked for, or undefined. */
export function countFault({
  ot_level: level,
  max_uses,
  max_bytes,
}: {
  readonly ot_level: number
  readonly max_uses?: number | undefined
  readonly max_bytes?: number | undefined
}): Refusal | undefined {
  if (level < 2 || (max_uses === undefined && max_bytes === undefined)) return undefined
  return new Refusal(
    'grant.counts',
    'a grant to write adds to the session of another grant, whose uses and bytes are what is counted',
    { nextStep: 'limit the grant to read beside it: --uses and --bytes there' },
  )
}

/**
 * Why a grant to write cannot be asked for, or undefined: policy would never count one that lasts longer than it lets
 * anybody write, or that outlasts the grant it adds to. `held` are the requester's, `longest` is policy's, in seconds.
 */
export function writeFault(
  statement: Statement,
  held: readonly Grant[],
  longest: number,
  now: number,
): Refusal | undefined {
  if (statement.not_after - statement.not_before > longest)
    return new Refusal('grant.window', `nobody may write for longer than ${longest} s here`, {
      nextStep: 'ask for a shorter window: --from and --until, or --for alone',
    })
  const open = held.filter((grant) => {
    const shown = shownState(grant, now)
    const live = shown === 'requested' || shown === 'approved' || shown === 'active'
    return live && statement.processes.some((name) => grant.statement.processes.includes(name))
  })
  if (open.filter((grant) => grant.statement.ot_level === 2).length >= MOST_WRITES)
    return new Refusal('grant.limit', `you have ${MOST_WRITES} grants to write there already`, {
      nextStep: 'give one back that you no longer need: sallyport done GRANT',
    })
  // A sealed one opens nothing, and so is none to add to.
  const adds = open.filter(
    ({ state, statement: { ot_level: level, sealed } }) =>
      level < 2 && state !== 'requested' && sealed === undefined,
  )
  // One that is still unused ends its duration after the next session begins, which may be now.
  const ends = (held: Grant) => {
    const one = during(held, now)
    return expiresAt({ ...one, first_used_at: one.first_used_at ?? Math.max(now, beginsAt(one)) })
  }
  const last = Math.max(...adds.map(ends))
  if (adds.length === 0 || statement.not_after < last) return undefined
  return new Refusal(
    'grant.window',
    `a grant to write ends before the grant that it adds to, and yours ends at ${instant(last)}`,
    { nextStep: 'ask for less time, or for a longer grant to read first' },
  )
}

const instant = (at: number) => new Date(at * 1000).toISOString().replace('.000Z', 'Z')

/** So long may anybody be inside behind a broken seal. */
const LONGEST_SEALED_S = 86_400

/** Why a grant cannot be sealed as asked for, or undefined. */
export function sealFault({
  sealed,
  recurring,
  ot_level: level,
  max_duration_s: duration,
}: Pick<Statement, 'sealed' | 'recurring' | 'ot_level' | 'max_duration_s'>): Refusal | undefined {
  const no = (detail: string, nextStep: string) => new Refusal('grant.seal', detail, { nextStep })
  if (sealed === undefined) return undefined
  if (recurring !== undefined)
    return no('a sealed grant does not come back', 'ask for two grants: one sealed, one recurring')
  if (level === 2)
    return no(
      'a grant to write adds to the session of another grant, and is not sealed',
      'seal the one to read; ask to write once that is open',
    )
  return duration <= LONGEST_SEALED_S
    ? undefined
    : no('nobody is inside for longer than a day behind a broken seal', 'ask with --for 4h')
}
