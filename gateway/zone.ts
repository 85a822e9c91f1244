/**
 * A zone is a name that the site data in force describe. Where they do not, every rule of a zone fails, and
 * what is said is that one thing: the zone is not described.
 */
import type { Denial } from '#policy'
import type { Decisions } from './decisions.ts'
import { Refusal } from './problem.ts'

type Zones = Pick<Decisions, 'zones'>

/** The most zones that a sentence names. */
const MAX_NAMED = 12

/** Throws Refusal `zone.unknown` where policy is in force and does not describe `zone`. */
export function requireZone(zone: string, decisions: Zones): void {
  const zones = decisions.zones()
  if (zones === undefined || zones.includes(zone)) return
  throw new Refusal(
    'zone.unknown',
    `the policy in force describes no zone ${zone}; ${said(zones)}`,
    {
      nextStep: `name one of its zones, or have the security engineer describe ${zone} in the site data and push the policy (sallyport policy push); a device cannot enrol into a zone that is not described`,
    },
  )
}

function said(zones: readonly string[]): string {
  if (zones.length === 0) return 'it describes none'
  const more = zones.length - MAX_NAMED
  const named = zones.slice(0, MAX_NAMED).join(', ')
  return `it describes ${more > 0 ? `${named} and ${more} more` : named}`
}

/**
 * What a device is told of a denial. In a zone that is not described the other denials come of that alone (its
 * hardware, its serial number and its key exchange are held against rules that are not there): one is left, and it
 * names the zone. The record of the decision has them all.
 */
export function toldIn(
  zone: string,
  denials: readonly Denial[],
  decisions: Zones,
): readonly Denial[] {
  const unknown = denials.find(({ code }) => code === 'zone.unknown')
  if (unknown === undefined || decisions.zones()?.includes(zone) !== false) return denials
  return [{ ...unknown, msg: `the policy in force describes no zone ${zone}` }]
}
