/** The HTTP contract: the schemas that validate, document and type `/api/v1`. Knows typebox only. */
export { Denial, GrantId, Instant, NAME, Name, Page, Problem, SessionId } from './common.ts'
export { BreakGlass, CloseReview, NewUnsealing } from './break-glass.ts'
export { Idp, IdpId, NewIdp, RemovedIdp } from './idps.ts'
export {
  Invitation,
  InvitationId,
  MadeInvitation,
  NewInvitation,
  RenewAccount,
} from './invitations.ts'
export { Lock, Locked, LockId, NewLock } from './locks.ts'
export { NewService, Service, ServiceId } from './services.ts'
export {
  ApproversToSign,
  Ceremony,
  CeremonyAnswer,
  CeremonyDone,
  CeremonySecret,
  CeremonyShown,
  NewPasskey,
  Passkey,
  PasskeyId,
  SignedGrant,
} from './passkeys.ts'
export { Enrolling, NewTotp, Totp, Totps } from './totp.ts'
export { Account, AccountId, Bootstrap, LinkAccount, Info, Me, NewAccount, Role } from './people.ts'
export {
  AcceptBaseline,
  Device,
  DeviceBaseline,
  Difference,
  Exposed,
  DeviceState,
  DeviceTls,
  EnrolmentToken,
  TokenAct,
  TokenId,
  DeviceToken,
  Expectation,
  NewDevice,
  NewProcess,
  Observed,
  Process,
} from './devices.ts'
export { NewRollout, Rollout, RolloutDevice, RolloutId } from './rollouts.ts'
export {
  AddedAuditor,
  Auditor,
  ConfirmAuditor,
  NewAuditor,
  Recording,
  RecordingPart,
  RecordingView,
} from './recordings.ts'
export { Enrolment, EnrolmentAnswer, EnrolmentId } from './enrolments.ts'
export {
  Certificate,
  CertificateQuery,
  ReplacedDevice,
  Revocation,
  RevocationList,
  RevocationReason,
  Revoke,
  RevokedDevice,
  Serial,
  IssuerId,
  RevokeIssuer,
} from './certificates.ts'
export {
  Approval,
  Approve,
  Cut,
  EndReason,
  EndedGrant,
  Grant,
  NewExtension,
  NewGrant,
  NewSession,
  SessionUse,
  SessionWatch,
  OpenedSession,
  Session,
  SessionSocket,
} from './access.ts'
export {
  Accused,
  Cosignature,
  HeadQuery,
  ShownHead,
  CosignaturesTaken,
  LogEntry,
  LogPage,
  LogQuery,
  PruneLog,
  PruneStatus,
  RotateLog,
  RotationStatus,
  WitnessList,
} from './evidence.ts'
export {
  BundleSourceHealth,
  DecisionId,
  DecisionsPage,
  DecisionsQuery,
  ImpactQuery,
  LoggedDecision,
  NewTrial,
  PolicyActivated,
  GatewayPolicy,
  PolicyDigest,
  PolicyGateways,
  PolicyImpact,
  PolicyStatus,
  PolicyTrial,
  WhoCan,
  WhoCanQuery,
} from './policy.ts'
