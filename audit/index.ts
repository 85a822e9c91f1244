/** The door: one durable log per node, events typed, heads signed, shipped to a SIEM, verified without us. */
export { openCheckpoint, parseCheckpoint } from './checkpoint.ts'
export type { Checkpoint } from './checkpoint.ts'
export { cosignedBy } from './cosign.ts'
export type { Cosigned } from './cosign.ts'
export { epochOf } from './epoch.ts'
export { EpochedLog, openEpoched } from './epoched.ts'
export { epochsIn, verifyEpochs } from './epochs.ts'
export type { EpochsVerdict, EpochVerdict } from './epochs.ts'
export { AuditError } from './errors.ts'
export type { AuditCode, Place } from './errors.ts'
export { readCatalogue } from './evidence/catalogue.ts'
export type { Catalogue } from './evidence/catalogue.ts'
export { buildEvidence, buildSiteEvidence } from './evidence/package.ts'
export type { Evidence, EvidenceOptions, SiteEvidenceOptions } from './evidence/package.ts'
export type { Control } from './evidence/verify.mjs'
export type { Json } from './event-row.ts'
export { endReasons, eventCodes } from './event.ts'
export type { Actor, Disposition, EndReason, EventCode, EventInput, EventOf } from './event.ts'
export { joinOf } from './format/ocsf.ts'
export { parseFrames, parseMessage } from './format/rfc5424.ts'
export type { ParsedMessage } from './format/rfc5424.ts'
export { openHeads } from './heads.ts'
export type { Verdict as HeadVerdict } from './heads.ts'
export type { Kept } from './shown.ts'
export type { ActiveLine } from './heartbeat.ts'
export { Handovers } from './show.ts'
export { openLog } from './log.ts'
export { openNodeLog, readerOf, rotateNodeLog } from './succession.ts'
export type { EndedEpoch, EpochKeys, NodeLog, NodeLogOptions, Rotation } from './succession.ts'
export type { Appended, AuditLog, LogState, Promised, Recovered, Room } from './contract.ts'
export type { LogLimits, LogOptions, Signers } from './options.ts'
export { Mirror } from './mirror/mirror.ts'
export type { Followed, Source as MirrorSource } from './mirror/mirror.ts'
export { makeMirrorKeys, mirrorStatus, openMirror, readMirrorKeys } from './mirror/open.ts'
export type { MirrorKeys, MirrorStatus } from './mirror/open.ts'
export { pruneLog } from './prune.ts'
export type { PruneOptions } from './prune.ts'
export type { PruneAsked } from './prune-live.ts'
export type { Pruned } from './prune-plan.ts'
export { formatVkey, parseVkey, parseWitnessKey } from './note.ts'
export type { Verifier } from './note.ts'
export { proveConsistency, proveEntry, readLog, verifyProof } from './prove.ts'
export type { Proof } from './prove.ts'
export { parseTilePath, Publisher } from './publish.ts'
export type { TileName } from './publish.ts'
export type { Entry } from './read.ts'
export { Recorder } from './recorder.ts'
export type {
  RecorderLimits,
  RecordingDisk,
  RecordingEnd,
  RecordingFacts,
  Track,
} from './recorder.ts'
export { CastWriter, readCast } from './recording/asciicast.ts'
export type { Cast } from './recording/asciicast.ts'
export { formatIdentity, identityOf, parseIdentities, parseRecipient } from './recording/keys.ts'
export type { Identity, Recipient } from './recording/keys.ts'
export { compare, fileOf, rootOf } from './recording/parts.ts'
export type { Fault, Format, Found, Logged, Part } from './recording/parts.ts'
export { pcapHeader, pcapPacket } from './recording/pcapng.ts'
export { readTrack } from './recording/read.ts'
export { openSealed, Sealer } from './recording/seal.ts'
export { webLine } from './recording/weblog.ts'
export {
  closeRecording,
  dropRecording,
  findParts,
  listRecordings,
  recordingPlaces,
  recordingsOver,
  loggedRecordings,
  openRecordings,
  partPath,
  readRecording,
  salvage,
} from './recordings.ts'
export type { RecordingPlace, StoredPart, StoredRecording } from './recordings.ts'
export { linesOf } from './export.ts'
export { reconcile, reconcileEpochs } from './reconcile.ts'
export type {
  EpochIndex,
  EpochReconciliation,
  EpochsReconciliation,
  Reconciliation,
  ReconcileOptions,
} from './reconcile.ts'
export type { Counted } from './tally.ts'
export { cursorOf } from './ship/cursor.ts'
export { shipEpochs } from './ship/epochs.ts'
export { shipHttps } from './ship/https.ts'
export type { HttpsOptions } from './ship/https.ts'
export { elastic, otlp, signWebhook, splunk, webhook } from './ship/kinds.ts'
export type {
  ElasticOptions,
  Kind,
  OtlpOptions,
  SplunkOptions,
  WebhookOptions,
} from './ship/kinds.ts'
export { shipSyslog } from './ship/syslog.ts'
export type { Shipper, SinkHealth } from './ship/sink.ts'
export type { SyslogOptions } from './ship/syslog.ts'
export { verifyConsistency, verifyInclusion } from './tree.ts'
export { verifyLog } from './verify.ts'
export type { Verdict, VerifyOptions } from './verify.ts'
export { openWitnesses } from './witnesses.ts'
export type { Witnesses } from './witnesses.ts'
