/** The door of the CA room: bytes, dates, randomness, stores and signers come in as arguments. */
export {
  createAuthority,
  createIssuing,
  createRoot,
  crossCertify,
  requestIssuing,
  type Authority,
  type CrossCertificates,
  type RootAtHand,
} from './authority.ts'
export { brokenAdoptionRules, type Candidate, type WantedNames } from './adopt.ts'
export { kindOfKeyFile, openSealed, sealKey } from './sealed.ts'
export {
  openIssuers,
  type ActiveIssuer,
  type Issuer,
  type IssuerSource,
  type Issuers,
} from './issuer.ts'
export type { KeyAlgorithm } from './algorithm.ts'
export { hashOf, softwareSigner, type Signer, type SigningAlgorithm } from './signer.ts'
export { issueServer, type ServerCertificate } from './server.ts'
export { newToken, obstacleToRebinding, rebindToken, type TokenObstacle } from './enroll.ts'
export { isMakersClaim } from './introduce.ts'
export {
  bodyTooLarge,
  est,
  EST_BODY_LIMIT,
  type CaDecision,
  type CaFacts,
  type Decide,
  type DeviceRecord,
  type Devices,
  type DeviceState,
  type EstConnection,
  type EstOptions,
  type EstRequest,
  type EstResponse,
  type Issued,
} from './est.ts'
export type { EstLabel } from './label.ts'
export { openAnchors, type Anchor, type Manufacturer } from './manufacturer.ts'
export { DECIDED_MS, type PendingRow, type PendingState, type PendingStore } from './pending.ts'
export { stillStands, verifyPeer, type Peer, type Stranger } from './path.ts'
export { resumeRevocations, revoke, revokeLapsed, type RevocationDesk } from './revoke.ts'
export { issueCrl, type Crl, type SigningIssuer } from './crl.ts'
export {
  answerOcsp,
  issueResponder,
  OCSP_REQUEST_LIMIT,
  OcspAnswers,
  refusal as ocspRefusal,
  type OcspAnswer,
  type OcspStatus,
  type Responder,
} from './ocsp.ts'
export {
  Draft,
  finish,
  prepare,
  record,
  Recorded,
  resume,
  sign,
  type IssuedRow,
  type IssueRequest,
  type IssuingDesk,
} from './issue.ts'
export { profiles, type Profile, type ProfileName } from './profile.ts'
export { decodeBody, encodePem } from './der/base64.ts'
export { isId, isTenant } from './name.ts'
export type {
  CaStore,
  CertificateFilter,
  CertificateRow,
  CertificateState,
  CrlNumbers,
  Intention,
  KeyOwner,
  Rebinding,
  RecordOutcome,
  RevocationIntention,
  RevocationIntentions,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
  TokenBinding,
  TokenRow,
} from './store.ts'
export type { CaEvent, CaLog, EnrolEvent, IssueEvent, RenewEvent, RevokeEvent } from './event.ts'
export { CaError, type CaCode, type Denial, type Fault, type PeerCode } from './errors.ts'
export { instant, type Instant, type Random } from './time.ts'
