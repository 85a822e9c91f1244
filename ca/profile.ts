/** What each kind of certificate may say: a table. Callers get the row, nobody switches on the name. */
import type { KeyAlgorithm } from './algorithm.ts'
import { CaError } from './errors.ts'

export type ProfileName = 'root' | 'issuing' | 'device' | 'gateway' | 'ocsp' | 'ra'

export interface Profile {
  readonly name: ProfileName
  readonly lifetimeSeconds: {
    readonly usual: number
    readonly least: number
    readonly most: number
  }
  /** Null for an end entity; CA: how many CAs may follow, null for any number. */
  readonly ca: { readonly pathLength: number | null } | null
  readonly extendedKeyUsage: readonly ('serverAuth' | 'clientAuth' | 'ocspSigning' | 'cmcRa')[]
  readonly keys: readonly KeyAlgorithm[]
  /** Whether EST serves it under its name as a label (RFC 7030 3.2.2). */
  readonly label: boolean
  /** Signs OCSP answers: says nocheck (RFC 6960 4.2.2.2.1) and names nobody in a SAN. */
  readonly responder?: true
}

const HOUR = 3_600
const DAY = 24 * HOUR
const YEAR = 365 * DAY

const everyKey = ['P-256', 'P-384', 'Ed25519', 'RSA-2048', 'RSA-3072', 'RSA-4096'] as const

export const profiles = {
  root: {
    name: 'root',
    lifetimeSeconds: { usual: 20 * YEAR, least: YEAR, most: 25 * YEAR },
    ca: { pathLength: null },
    extendedKeyUsage: [],
    keys: ['P-384'],
    label: false,
  },
  issuing: {
    name: 'issuing',
    lifetimeSeconds: { usual: 5 * YEAR, least: 30 * DAY, most: 10 * YEAR },
    ca: { pathLength: 0 },
    extendedKeyUsage: [],
    keys: ['P-256', 'P-384'],
    label: false,
  },
  device: {
    name: 'device',
    lifetimeSeconds: { usual: 72 * HOUR, least: DAY, most: 7 * DAY },
    ca: null,
    extendedKeyUsage: ['clientAuth'],
    keys: everyKey,
    label: true,
  },
  gateway: {
    name: 'gateway',
    lifetimeSeconds: { usual: 30 * DAY, least: DAY, most: 90 * DAY },
    ca: null,
    extendedKeyUsage: ['serverAuth'],
    keys: ['P-256', 'P-384', 'Ed25519'],
    label: false,
  },
  ocsp: {
    name: 'ocsp',
    lifetimeSeconds: { usual: 7 * DAY, least: DAY, most: 7 * DAY },
    ca: null,
    extendedKeyUsage: ['ocspSigning'],
    keys: ['P-256', 'P-384', 'Ed25519'],
    label: false,
    responder: true,
  },
  ra: {
    name: 'ra',
    lifetimeSeconds: { usual: DAY, least: HOUR, most: DAY },
    ca: null,
    extendedKeyUsage: ['clientAuth', 'cmcRa'],
    keys: everyKey,
    label: true,
  },
} as const satisfies Record<ProfileName, Profile>

/** The profiles that EST issues. */
export type EstProfileName = {
  [Name in ProfileName]: (typeof profiles)[Name]['label'] extends true ? Name : never
}[ProfileName]

/** A request is repeated for the same certificate this long at most, and a third of its life at most. */
export function recallSeconds(lifetimeSeconds: number): number {
  return Math.min(DAY, Math.floor(lifetimeSeconds / 3))
}

/** The life to use when `wanted` was configured. Throws CaError `profile` when the profile does not allow it. */
export function lifetimeWithin(profile: Profile, wanted: number | undefined): number {
  const { usual, least, most } = profile.lifetimeSeconds
  const seconds = wanted ?? usual
  if (!Number.isSafeInteger(seconds) || seconds < least || seconds > most)
    throw new CaError(
      'profile',
      'local',
      `a ${profile.name} certificate lives ${least} to ${most} seconds, not ${seconds}`,
    )
  return seconds
}
