/** A node, its people, and the passkeys that two of them have. */
import { afterAll, beforeAll } from 'vitest'
import type { Ceremony, Grant, Passkey } from '#api'
import { softKey, type SoftKey } from '../../support/authenticator.ts'
import { send, startNode, type Person, type TestNode } from '../../support/node.ts'
import { expecting } from '../../support/tunnels.ts'

export let node: TestNode
/** Two of the staff, and a vendor. */
export let oda: Person
export let olaf: Person
export let vera: Person
/** Oda's passkey, and Olaf's. */
export let own: SoftKey
export let others: SoftKey

/** One node for the rows of a file. */
export function aNode(): void {
  beforeAll(async () => {
    node = await startNode()
    await node.device('press-07', { plc: expecting() })
    ;[oda, olaf, vera] = await Promise.all([
      node.person('oda', { party: 'staff', roles: ['operator'] }),
      node.person('olaf', { party: 'staff', roles: ['operator'] }),
      node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    ])
    own = await addKey(oda, 'key')
    others = await addKey(olaf, 'key')
  })
  afterAll(async () => node[Symbol.asyncDispose]())
}

export const post = async (path: string, body: object) =>
  send(node, { method: 'POST', path: `/api/v1/ceremonies/${path}`, body })
export const answer = async ({ secret }: Ceremony, credential: object) =>
  post('answer', { secret, credential })
export const challengeOf = ({ options }: Ceremony) => (options as { challenge: string }).challenge

export async function addKey(who: Person, name: string): Promise<SoftKey> {
  const key = softKey(node.origin)
  const asked = await who.ask<Ceremony>('POST', '/passkeys', { name })
  const reply = await answer(asked, key.register(challengeOf(asked)))
  if (reply.status !== 200) throw new Error(reply.text)
  return key
}

export async function subOf(who: Person): Promise<string> {
  const found = await node.admin.ask<{ items: { sub: string }[] }>(
    'GET',
    `/accounts?email=${who.email}`,
  )
  return found.items[0]?.sub ?? ''
}

/** An administrator takes Oda's passkeys away, which ends every login of hers; she signs in and adds another. */
export async function renewed(): Promise<void> {
  const path = `/accounts/${await subOf(oda)}/passkeys/remove`
  const { items } = await node.admin.ask<{ items: Passkey[] }>('POST', path, {})
  if (items.length > 0) throw new Error('some passkeys were left')
  oda = await node.signIn(oda.email)
  own = await addKey(oda, 'new')
}

export const WANTED = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'service' }
export const approval = async (who: Person, { id }: Grant) =>
  await who.ask<Ceremony>('POST', `/grants/${id}/approval`, {})
