/**
 * Every denial code the product itself gives, with the sentence a person reads and the next step.
 * Codes in the default Rego must be here, with the same sentence (policy check, test/policy).
 * A sentence names nobody and no executable: who and which one are in the event.
 */
import type { Remedy } from './decision.ts'

export interface CatalogueRow {
  readonly msg: string
  /** What to do next, in one sentence, for the person who was denied. */
  readonly next: string
  readonly remedy?: Remedy
}

export const CATALOGUE = {
  'admin.not_owner': {
    msg: 'this belongs to somebody else',
    next: 'Ask an operator, or name one of your own.',
  },
  'admin.role_missing': {
    msg: 'your role does not include this operation',
    next: 'Ask an administrator to do it, or to change your role.',
  },
  'admin.second_person': {
    msg: 'this needs the consent of a second person',
    next: 'Ask another administrator to confirm it.',
    remedy: 'approve',
  },
  'agent.too_old': {
    msg: 'the agent on the device is older than this site accepts',
    next: 'Upgrade the agent, then try again.',
    remedy: 'upgrade',
  },
  'approval.unsigned': {
    msg: 'this zone takes approvals that a passkey signed',
    next: 'Approve with your passkey: sallyport approve asks for it, and sallyport passkey add makes one.',
    remedy: 'step_up',
  },
  'approver.already_approved': {
    msg: 'you have approved this already',
    next: 'Wait for another approver.',
  },
  'approver.is_requester': {
    msg: 'nobody approves their own request',
    next: 'Ask another person to approve it.',
  },
  'approver.not_eligible': {
    msg: 'you may not approve requests in this zone',
    next: 'Ask somebody with an approver role of this zone.',
  },
  'attestation.missing': {
    msg: 'the zone requires a device whose hardware is attested',
    next: 'Attest the device, then try again.',
    remedy: 'attest',
  },
  'client.network': {
    msg: 'this zone cannot be reached from your network',
    next: 'Connect from a network that the zone names.',
  },
  'client.posture': {
    msg: 'your computer has not passed a recent health check',
    next: 'Run the health check, then try again.',
    remedy: 'attest',
  },
  'client.unmanaged': {
    msg: 'this zone accepts managed computers only',
    next: 'Use a computer managed by your company.',
  },
  'consent.missing': {
    msg: 'the owner of the device has not consented',
    next: 'Ask the people at the device to consent there.',
    remedy: 'consent',
  },
  'device.certificate_expired': {
    msg: 'the certificate of the device has ended',
    next: 'Let the agent renew it, then try again.',
  },
  'device.island': {
    msg: 'the device is cut off by its owner',
    next: 'Ask the people at the device to let visitors in again.',
  },
  'device.not_active': {
    msg: 'the device is not in service',
    next: 'Ask the engineer of the device.',
  },
  'device.posture': {
    msg: 'the device has not passed a recent health check',
    next: 'Ask the engineer of the device to run it.',
    remedy: 'attest',
  },
  'device.quarantined': {
    msg: 'the device is in quarantine',
    next: 'Ask an operator; a quarantined device takes no sessions.',
  },
  'enroll.key_refused': {
    msg: 'keys of this kind are not accepted here',
    next: 'Enrol with one of the accepted kinds of key.',
  },
  'enroll.serial_mismatch': {
    msg: 'the claimed serial number is not the one expected',
    next: 'Compare the number on the machine with the device record.',
  },
  'enroll.token_expired': {
    msg: 'the enrolment token has ended',
    next: 'Ask the device engineer for a new one.',
  },
  'enroll.token_none': {
    msg: 'there is no such enrolment token',
    next: 'Ask the device engineer for a token.',
  },
  'enroll.token_spent': {
    msg: 'the enrolment token has been used',
    next: 'Ask the device engineer for a new one.',
  },
  'enroll.token_zone': {
    msg: 'the enrolment token belongs to another zone',
    next: 'Use a token made for this device.',
  },
  'grant.expired': {
    msg: 'your grant has ended',
    next: 'Request a new grant.',
    remedy: 'request_grant',
  },
  'grant.incomplete': {
    msg: 'the record of your grant is incomplete',
    next: 'Tell the operator; the grant lacks its id, its byte limit or its windows.',
  },
  'grant.none': {
    msg: 'you hold no grant for this process',
    next: 'Request a grant.',
    remedy: 'request_grant',
  },
  'grant.not_pending': {
    msg: 'the request is not waiting for approval',
    next: 'Look up its state; a new request may be needed.',
  },
  'grant.not_yet': {
    msg: 'your grant has not begun',
    next: 'Come back when its time begins.',
  },
  'grant.pending': {
    msg: 'your request waits for approval',
    next: 'Ask an approver of the zone to decide it.',
    remedy: 'approve',
  },
  'grant.revoked': {
    msg: 'your grant was revoked',
    next: 'Request a new grant.',
    remedy: 'request_grant',
  },
  'grant.ticket': {
    msg: 'this zone requires a valid ticket on the grant',
    next: 'Request a grant that names a valid ticket.',
    remedy: 'request_grant',
  },
  'grant.unapproved': {
    msg: 'your grant has fewer approvals than the zone requires',
    next: 'Request a new grant: this one takes no further approvals.',
    remedy: 'request_grant',
  },
  'http.method_refused': {
    msg: 'this kind of web request is not allowed here',
    next: 'Ask for a grant that includes it, or use the pages that only read.',
  },
  'identity.expired': {
    msg: 'your sign-in has ended',
    next: 'Sign in again.',
    remedy: 'step_up',
  },
  'identity.kind': {
    msg: 'sessions are for people and services, not for devices',
    next: 'Sign in as a person.',
  },
  'lock.active': {
    msg: 'access is locked',
    next: 'Ask an operator; a lock is lifted by a person.',
  },
  'mfa.stale': {
    msg: 'a fresh second factor is required',
    next: 'Sign in again with your second factor.',
    remedy: 'step_up',
  },
  'ot.not_permitted': {
    msg: 'this operation is beyond what your grants permit',
    next: 'Request a grant approved for write with the addresses you need.',
    remedy: 'request_grant',
  },
  'process.lan_refused': {
    msg: 'targets beside the device are not allowed in this zone',
    next: 'Ask the security engineer of the zone.',
  },
  'process.mismatch': {
    msg: 'an executable other than the approved one answers',
    next: 'Tell the engineer of the device; which one answers is in the event.',
  },
  'process.no_expectation': {
    msg: 'no executable has been approved for this process',
    next: 'Ask the engineer of the device to register what should answer.',
  },
  'process.unobserved': {
    msg: 'the device has not reported what answers',
    next: 'Check that the process runs, then try again.',
  },
  'renew.chain': {
    msg: 'the certificate presented is not a valid one of this device',
    next: 'Enrol the device again with a token.',
  },
  'renew.not_same': {
    msg: 'the certificate names another device',
    next: 'Renew with the device’s own certificate.',
  },
  'renew.too_late': {
    msg: 'the certificate ended too long ago to renew by itself',
    next: 'Ask an operator to approve it, or enrol again with a token.',
    remedy: 'approve',
  },
  'request.duration': {
    msg: 'the time asked for is longer than the zone allows',
    next: 'Ask for less time.',
  },
  'request.process_missing': {
    msg: 'the request names no process',
    next: 'Name the process you need.',
  },
  'request.reason_missing': {
    msg: 'a reason is required',
    next: 'Say why you need access.',
  },
  'request.ticket_missing': {
    msg: 'this zone requires a ticket',
    next: 'Name the ticket of the work.',
  },
  'requester.not_eligible': {
    msg: 'your party may not be admitted to this zone',
    next: 'Ask the security engineer of the zone.',
  },
  'session.too_long': {
    msg: 'the session has reached its longest time',
    next: 'Open a new session if the grant still runs.',
  },
  'tls.not_pq': {
    msg: 'this zone requires a post-quantum key exchange on every hop',
    next: 'Upgrade the side that did not offer it.',
    remedy: 'upgrade',
  },
  'tunnel.peer': {
    msg: 'the tunnel is not the device’s own',
    next: 'Dial with the device’s own certificate.',
  },
  'window.closed': {
    msg: 'the maintenance window of the zone is closed',
    next: 'Ask for a window, or come back when it opens.',
    remedy: 'request_window',
  },
  'zone.unknown': {
    msg: 'the zone is unknown or its rules are incomplete',
    next: 'Ask the security engineer to describe the zone in the site data.',
  },

  'policy.error': {
    msg: 'the policy could not decide',
    next: 'Tell the security engineer the decision id.',
  },
  'policy.no_match': {
    msg: 'no rule allows this',
    next: 'Ask the security engineer, with the decision id.',
  },
  'policy.stale': {
    msg: 'the policy in force is older than it may be',
    next: 'Deliver the current policy bundle; the status says since when it is missing.',
  },
  'policy.unavailable': {
    msg: 'no policy is loaded',
    next: 'Load a policy bundle; until then everything is denied.',
  },
  'obligation.unknown': {
    msg: 'the policy binds access to something this library does not know',
    next: 'Tell the security engineer the decision id.',
  },
  'obligation.unsupported': {
    msg: 'the policy binds access to something this gateway cannot enforce',
    next: 'Upgrade the gateway, or roll the policy back.',
  },
  'input.invalid': {
    msg: 'the request cannot be put to the policy',
    next: 'Correct the request; the event names the part at fault.',
  },
  'host.approver_is_requester': {
    msg: 'nobody approves their own request',
    next: 'Ask another person to approve it.',
  },
  'host.device_chain': {
    msg: 'the certificate of the device is not valid',
    next: 'Enrol the device again.',
  },
  'host.device_revoked': {
    msg: 'the certificate of the device is revoked',
    next: 'Enrol the device again.',
  },
  'host.identity': {
    msg: 'you are not signed in',
    next: 'Sign in.',
    remedy: 'step_up',
  },
  'host.process_unregistered': {
    msg: 'the device has no such process',
    next: 'Check the name, or register the process first.',
  },
  'host.tenant': {
    msg: 'this belongs to another tenant',
    next: 'Use the tenant it belongs to.',
  },
  'host.tunnel_peer': {
    msg: 'the tunnel is not the device’s own',
    next: 'Dial with the device’s own certificate.',
  },
} as const satisfies Record<string, CatalogueRow>

export type DenialCode = keyof typeof CATALOGUE
export type HostCode = Extract<DenialCode, `host.${string}`>

/** Codes that say why something is allowed, with a sentence for the log's reader. */
export const REASONS = {
  'admin.own': 'the role includes it for one’s own things',
  'admin.role': 'the role includes it',
  'approver.eligible': 'an approver of the zone, not the requester',
  'device.active': 'the device is in service',
  'device.quarantined_tunnel': 'a quarantined device keeps its tunnel and nothing else',
  'enroll.token': 'a live token of the device’s zone',
  'grant.live': 'a live, approved grant names subject, device and process',
  'http.session': 'a live session, and a method the site allows',
  'ot.read': 'reading is included in the grant',
  'ot.write': 'a second grant approved for write covers the address',
  'renew.current': 'the device renews its own valid certificate',
  'renew.late': 'a late renewal within the grace, with the same key, the first time',
  'request.eligible': 'the zone lets this party ask',
  'standing.access': 'a standing right of the zone for staff',
} as const satisfies Record<string, string>

const MAX_SENTENCE = 512
/** What would break a line, or look like another; Go and Node print these in two ways as well. */
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const BROKEN = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

/** Whether a value is a text that can stand in front of a person as one line, of at most 512 characters. */
export function isSentence(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.trim() !== '' &&
    value.length <= MAX_SENTENCE &&
    value.isWellFormed() &&
    !BROKEN.test(value)
  )
}

/** The catalogue's row for a code, or nothing for a customer's own. */
export function catalogueRow(code: string): CatalogueRow | undefined {
  return Object.hasOwn(CATALOGUE, code) ? CATALOGUE[code as DenialCode] : undefined
}
