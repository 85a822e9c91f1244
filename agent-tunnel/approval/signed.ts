/**
 * A grant with its approvals as a file that is checked without the gateway: every approval's assertion signs
 * the SHA-256 of the canonical statement. What the file cannot prove by itself, whose key it is, is proven by
 * keys that the reader pinned.
 */
import {
  checkAssertion,
  readAssertion,
  readKey,
  type Assertion,
  type AssertionFault,
  type SigningKey,
} from './assertion.ts'
import { hashOf, readStatement, type Statement } from './statement.ts'

/** How an approval was signed: the assertion, and the key as it was when it was checked. */
export interface GrantSignature {
  readonly assertion: Assertion
  readonly key: SigningKey
  readonly relying_party: RelyingParty
}

/** Whom a passkey signed for: a host name, and the origins whose pages may have asked. */
export interface RelyingParty {
  readonly id: string
  readonly origins: readonly string[]
}

/** One approval. `by` is `<iss>|<sub>`, `at` epoch seconds; `signature` is null for one without a passkey. */
export interface SignedApproval {
  readonly by: string
  readonly email: string | null
  readonly at: number
  readonly decision_id: string
  readonly signature: GrantSignature | null
}

export interface SignedGrant {
  readonly v: 1
  readonly statement: Statement
  readonly approvals: readonly SignedApproval[]
}

/** What is known of one approval. `key.unpinned`: a good signature by a key that nobody vouches for. */
export interface ApprovalProof {
  /** By the name that the reader has for the key; null: they have none. */
  readonly person: string | null
  /** These three are the gateway's word: nobody signed them. */
  readonly by: string
  readonly email: string | null
  readonly at: number
  readonly state: 'signed' | 'unsigned' | 'refused'
  readonly fault: AssertionFault | 'key.unpinned' | 'approver.repeated' | null
}

export interface GrantProof {
  /** SHA-256 of the canonical statement, hex. */
  readonly hash: string
  readonly statement: Statement
  readonly approvals: readonly ApprovalProof[]
  /** How many people signed. */
  readonly people: number
  /** As many people signed as were asked for, or, without a number, every approval is signed and there is one. */
  readonly proven: boolean
}

const MAX_APPROVALS = 64

function readApproval(value: unknown): SignedApproval | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const members = new Map<string, unknown>(Object.entries(value))
  const [by, email, at] = [members.get('by'), members.get('email') ?? null, members.get('at')]
  const decision = members.get('decision_id')
  if (typeof by !== 'string' || typeof decision !== 'string') return undefined
  if (typeof at !== 'number' || !Number.isSafeInteger(at)) return undefined
  if (email !== null && typeof email !== 'string') return undefined
  const signature = readSignature(members.get('signature') ?? null)
  if (signature === undefined) return undefined
  return { by, email, at, decision_id: decision, signature }
}

function readSignature(value: unknown): GrantSignature | null | undefined {
  if (value === null) return null
  if (typeof value !== 'object' || value === undefined) return undefined
  const members = new Map<string, unknown>(Object.entries(value))
  const assertion = readAssertion(members.get('assertion'))
  const key = members.get('key')
  const party = readParty(members.get('relying_party'))
  if (assertion === undefined || party === undefined || readKey(key) === undefined) return undefined
  const { alg, spki } = key as SigningKey
  return { assertion, key: { alg, spki }, relying_party: party }
}

/** The signed grant in `value` (parsed JSON), or undefined for anything that is not one of version 1. */
export function readSignedGrant(value: unknown): SignedGrant | undefined {
  if (typeof value !== 'object' || value === null || !('v' in value) || value.v !== 1)
    return undefined
  const members = new Map<string, unknown>(Object.entries(value))
  const statement = readStatement(members.get('statement'))
  const given = members.get('approvals')
  if (statement === undefined) return undefined
  if (!Array.isArray(given) || given.length > MAX_APPROVALS) return undefined
  const approvals = given.map(readApproval).filter((one) => one !== undefined)
  if (approvals.length !== given.length) return undefined
  return { v: 1, statement, approvals }
}

/** A relying party: its host name, and one to eight origins. */
export function readParty(value: unknown): RelyingParty | undefined {
  if (typeof value !== 'object' || value === null || !('id' in value) || !('origins' in value))
    return undefined
  const { id, origins } = value
  if (typeof id !== 'string' || id === '' || id.length > 253) return undefined
  if (!Array.isArray(origins) || origins.length < 1 || origins.length > 8) return undefined
  const texts = origins.filter((origin) => typeof origin === 'string' && origin.length <= 300)
  return texts.length === origins.length ? { id, origins: texts as string[] } : undefined
}

/**
 * Checks every approval of `grant`, from the file alone. `pinned` are keys (base64url SPKI) that the reader trusts, with
 * the name of the person or null; without it the file's own keys are taken, which proves that nothing was changed since,
 * not whose keys they are. One key, and one person, counts once: by the reader's name, else by what the gateway says.
 * `quorum` is how many people must have signed.
 */
export function checkSignedGrant(
  grant: SignedGrant,
  pinned?: ReadonlyMap<string, string | null>,
  quorum?: number,
): GrantProof {
  const hash = hashOf(grant.statement)
  const seen = new Set<string>()
  const challenge = Buffer.from(hash, 'hex')
  const approvals = grant.approvals.map(({ by, email, at, signature }): ApprovalProof => {
    const person = signature === null ? null : (pinned?.get(signature.key.spki) ?? null)
    const common = { person: null, by, email, at }
    if (signature === null) return { ...common, state: 'unsigned', fault: null }
    const refused = (fault: NonNullable<ApprovalProof['fault']>): ApprovalProof => ({
      ...common,
      state: 'refused',
      fault,
    })
    const { assertion, key, relying_party: party } = signature
    const expected = { challenge, rpId: party.id, origins: party.origins }
    const outcome = checkAssertion(assertion, key, expected)
    if (!outcome.ok) return refused(outcome.code)
    if (pinned !== undefined && !pinned.has(key.spki)) return refused('key.unpinned')
    const names = [`key ${key.spki}`, person === null ? `by ${by}` : `person ${person}`]
    if (names.some((name) => seen.has(name))) return refused('approver.repeated')
    for (const name of names) seen.add(name)
    return { ...common, person, state: 'signed', fault: null }
  })
  const people = approvals.filter(({ state }) => state === 'signed').length
  const all = approvals.length > 0 && people === approvals.length
  const proven = quorum === undefined ? all : people >= quorum
  return { hash, statement: grant.statement, approvals, people, proven }
}
