package policy.grant.approve

import data.policy.facts
import data.sallyport.lib

_eligible if {
	input.subject.party == "staff"
	input.subject.kind == "human"
	some role in input.subject.roles
	role in facts.zone.approvers
}

# Neither the one who asked nor the one who would get in.
_another if {
	is_string(input.subject.id)
	is_string(input.approval.grant.requester)
	is_string(input.approval.grant.subject)
	not input.subject.id in {input.approval.grant.requester, input.approval.grant.subject}
}

_not_yet_approved if {
	is_string(input.subject.id)
	is_array(input.approval.approvals)
	is_array(input.approval.grant.approvers)
	every approver in array.concat(input.approval.approvals, input.approval.grant.approvers) {
		is_string(approver)
		approver != input.subject.id
	}
}

_pending if {
	input.approval.grant.state == "requested"
	lib.between(0, facts.now, input.approval.grant.not_after)
}

allow contains {"code": "approver.eligible", "ref": input.approval.grant.id} if _eligible

deny contains {"code": "zone.unknown", "msg": "the zone is unknown or its rules are incomplete"} if not facts.zone_known

deny contains {"code": "approver.not_eligible", "msg": "you may not approve requests in this zone"} if not _eligible

deny contains {"code": "approver.is_requester", "msg": "nobody approves their own request"} if not _another

deny contains {"code": "approver.already_approved", "msg": "you have approved this already"} if not _not_yet_approved

deny contains {"code": "grant.not_pending", "msg": "the request is not waiting for approval"} if not _pending

deny contains {"code": "lock.active", "msg": "access is locked"} if not facts.unlocked

deny contains facts.device_denial if not facts.device_active

deny contains {"code": "identity.expired", "msg": "your sign-in has ended", "remedy": "step_up"} if not facts.identity_live

deny contains {
	"code": "mfa.stale",
	"msg": "a fresh second factor is required",
	"remedy": "step_up",
} if not facts.mfa_fresh_to_approve

deny contains {
	"code": "approval.unsigned",
	"msg": "this zone takes approvals that a passkey signed",
	"remedy": "step_up",
} if not _signed

_signed if {
	facts.zone.signed_approvals == false
} else if {
	input.approval.signed == true
}

# How many approvals the grant needs in all: those made before the zone asked for signatures are worth nothing
# here, and others must make up for them.
obligations contains {
	"approvals": facts.zone.approvals + _worthless,
	"max_duration_s": facts.zone.max_grant_s,
}

_worthless := 0 if {
	facts.zone.signed_approvals == false
} else := count(input.approval.approvals) - count(_signed_before) if {
	is_array(input.approval.approvals)
}

_signed_before contains a if {
	some a in input.approval.approvals
	is_string(a)
	a in input.approval.grant.signers
}

obligations contains {"notify": true} if not facts.ordinary
