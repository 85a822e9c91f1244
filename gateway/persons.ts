/** Who is behind an identity: what keeps one person from counting as two. */
import type { Identity } from './identity/index.ts'
import { Refusal } from './problem.ts'

type People = Pick<Identity, 'issuer' | 'accounts'>

async function personOf({ issuer, accounts }: People, identity: string) {
  const ours = identity.startsWith(`${issuer}|`)
  const account = ours ? await accounts.find(identity.slice(issuer.length + 1)) : undefined
  return account?.person
}

/** The person behind an identity of ours; one that is not there any more stands for itself. */
export function personsOf(people: People): (identity: string) => Promise<string> {
  return async (identity) => (await personOf(people, identity)) ?? identity
}

/**
 * The same where grants come from other gateways too: whoever has no account here may be somebody who has one, so nobody
 * here can tell whether two of a grant are two. Throws Refusal `grant.person`.
 */
export function knownPersonsOf(people: People): (identity: string) => Promise<string> {
  return async (identity) => {
    const person = await personOf(people, identity)
    if (person !== undefined) return person
    throw new Refusal('grant.person', `${identity} has no account on this gateway`, {
      nextStep:
        'go on at a gateway that has this account; where none has, have it revoked and asked for anew',
    })
  }
}
