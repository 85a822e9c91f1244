/** What people approved, and whether they did: the frozen statement, its signatures, the keys that count. */
export {
  areWindows,
  canonical,
  hashOf,
  MOST_BYTES,
  MOST_OPENERS,
  MOST_USES,
  MOST_WINDOWS,
  readStatement,
  windowsInWords,
  type AddressWindow,
  type GrantRef,
  type Seal,
  type Statement,
} from './statement.ts'
export {
  instantInZone,
  isRecurrence,
  nextPeriod,
  periodAt,
  recurrenceInWords,
  type Period,
  type Recurrence,
} from './recurrence.ts'
export {
  checkAssertion,
  digestOf,
  readAssertion,
  readKey,
  type Assertion,
  type AssertionFault,
  type Expected,
  type KeyAlgorithm,
  type SigningKey,
} from './assertion.ts'
export {
  checkSignedGrant,
  readSignedGrant,
  type GrantProof,
  type GrantSignature,
  type RelyingParty,
  type SignedApproval,
  type SignedGrant,
} from './signed.ts'
export {
  checkOpening,
  checkSuccession,
  hashOfSet,
  readApproverSet,
  type ApproverSet,
  type ApproversFault,
} from './approvers.ts'
