/**
 * Service accounts: an administrator enters a program's public key, what it is and what of that it may use. The program
 * signs for its tokens (RFC 7523), which last ten minutes and are bound to a key of its own (RFC 9449). Nothing here is a
 * secret. A service never becomes more than it was entered as: to change it is to enter another and to revoke this one.
 */
import { calculateJwkThumbprint } from 'jose'
import { newId } from '../../ids.ts'
import type { Actor } from '../account.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type IdentityChange, type IdentityLog } from '../events.ts'
import { checkFacts } from '../facts.ts'
import type { ServiceRow, ServiceStore } from './store.ts'
import { isScope } from './scopes.ts'

const DAY_S = 86_400
/** How long one stands: where nothing is said, at least, and at most. Seconds. */
const STANDS_S = { usual: 90 * DAY_S, least: 3_600, most: 366 * DAY_S } as const
/** Of those that stand. */
const MOST = 1_000

export interface NewService {
  readonly name: string
  readonly vendor: string | null
  readonly roles: readonly string[]
  readonly groups: readonly string[]
  readonly scopes: readonly string[]
  readonly key: ServiceRow['key']
  readonly standsSeconds?: number | undefined
}

export interface Services {
  /** Errors: service.key, .scope, .expiry, .exists, .full, account.vendor, .roles, .groups, log.unavailable. */
  add(service: NewService, by: Actor): Promise<ServiceRow>
  find(id: string): Promise<ServiceRow | undefined>
  /** Newest first, those that are past too. */
  list(): Promise<readonly ServiceRow[]>
  /** It gets no token any more, and what runs in its name is cut. Errors: service.unknown, .revoked, log.unavailable. */
  revoke(id: string, by: Actor): Promise<ServiceRow>
}

export interface ServicesRoom {
  readonly issuer: string
  readonly serviceStore: ServiceStore
  readonly log: IdentityLog
  readonly changed: (change: IdentityChange) => void
  /** Epoch milliseconds. */
  readonly now: () => number
}

export function openServices(room: ServicesRoom): Services {
  return {
    add: async (service, by) => add(room, service, by),
    find: async (id) => room.serviceStore.findService(id),
    list: async () => room.serviceStore.listServices(),
    revoke: async (id, by) => revoke(room, id, by),
  }
}

async function add(room: ServicesRoom, asked: NewService, by: Actor): Promise<ServiceRow> {
  const { serviceStore, log, now, issuer } = room
  const row = await rowOf(room, asked, by)
  const { id, name, party, vendor, roles, groups, scopes, thumbprint, expiresAt } = row
  const event = {
    code: 'service.create',
    at: now(),
    source: by.source,
    by: by.id,
    byParty: by.party,
    service: `${issuer}|${id}`,
    changes: { name, party, vendor, roles, groups, scopes, key: thumbprint, expires: new Date(expiresAt).toISOString() },
  } as const // prettier-ignore
  const refusals = { exists: 'service.exists', full: 'service.full' } as const
  const outcome = await recordAct(log, [event], refusals, async () =>
    serviceStore.addService(row, MOST, now()),
  )
  if (outcome !== 'added') throw new IdentityError(refusals[outcome])
  return row
}

async function rowOf({ now }: ServicesRoom, asked: NewService, by: Actor): Promise<ServiceRow> {
  const { name, vendor, key } = asked
  const facts = checkFacts({
    email: addressOf(name),
    name,
    party: vendor === null ? 'staff' : 'vendor',
    vendor,
    roles: [...new Set(asked.roles)],
    groups: [...new Set(asked.groups)],
  })
  if (!asked.scopes.every(isScope)) throw new IdentityError('service.scope')
  const seconds = asked.standsSeconds ?? STANDS_S.usual
  if (!Number.isSafeInteger(seconds) || seconds < STANDS_S.least || seconds > STANDS_S.most)
    throw new IdentityError('service.expiry')
  const plain = { kty: key.kty, crv: key.crv, x: key.x, y: key.y } as const
  await readKey(plain)
  return {
    id: newId('v'),
    ...facts,
    scopes: [...new Set(asked.scopes)],
    key: plain,
    thumbprint: await calculateJwkThumbprint(plain),
    by: by.id,
    createdAt: now(),
    expiresAt: now() + seconds * 1000,
    revokedAt: null,
    usedAt: null,
    tokenUntil: 0,
  }
}

/** A point of the curve, or it would be refused when it is used. Error: service.key. */
async function readKey(key: ServiceRow['key']): Promise<void> {
  const kind = { name: 'ECDSA', namedCurve: 'P-256' }
  try {
    await crypto.subtle.importKey('jwk', { ...key }, kind, true, ['verify'])
  } catch (cause) {
    throw new IdentityError('service.key', { cause })
  }
}

/** What the log and lists call it; no mail reaches it (RFC 2606). */
const addressOf = (name: string): string => `${name}@service.invalid`

async function revoke(room: ServicesRoom, id: string, by: Actor): Promise<ServiceRow> {
  const { serviceStore, log, now, issuer, changed } = room
  const before = await serviceStore.findService(id)
  if (before === undefined) throw new IdentityError('service.unknown')
  if (before.revokedAt !== null) throw new IdentityError('service.revoked')
  const service = `${issuer}|${id}`
  const common = { at: now(), source: by.source, by: by.id, byParty: by.party, service }
  const event = { code: 'service.revoke', ...common, changes: { name: before.name } } as const
  const act = async () => ((await serviceStore.revokeService(id, now())) ? 'revoked' : 'gone')
  const outcome = await recordAct(log, [event], { gone: 'service.revoked' }, act)
  if (outcome !== 'revoked') throw new IdentityError('service.revoked')
  changed({ kind: 'disabled', subject: service, login: null })
  return (await serviceStore.findService(id)) ?? before
}
