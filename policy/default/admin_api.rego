# What a role may do is data: site.roles[role][operation] is "any" (every target) or "own" (those the subject owns).
package policy.admin.api

import data.policy.facts
import data.sallyport.lib

_any if {
	is_string(input.admin.operation)
	some role in input.subject.roles
	data.site.roles[role][input.admin.operation] == "any"
}

_own if {
	is_string(input.admin.operation)
	some role in input.subject.roles
	data.site.roles[role][input.admin.operation] == "own"
}

# For a list the target is the list of an owner: {"kind": "grant", "id": "*", "owner": …}.
_owner if lib.same(input.admin.target.owner, input.subject.id)

_permitted if _any

_permitted if {
	_own
	_owner
}

_role_denial := {"code": "admin.not_owner", "msg": "this belongs to somebody else"} if {
	_own
} else := {"code": "admin.role_missing", "msg": "your role does not include this operation"}

allow contains {"code": "admin.role"} if _any

allow contains {"code": "admin.own"} if {
	_own
	_owner
}

deny contains _role_denial if not _permitted

# An auditor reads; a vendor touches nothing but their own. Data that says otherwise does not count.
_may_change if input.admin.mutating == false

_may_change if {
	input.admin.mutating == true
	some role in input.subject.roles
	role != "auditor"
	data.site.roles[role][input.admin.operation] in ["any", "own"]
}

deny contains {"code": "admin.role_missing", "msg": "your role does not include this operation"} if not _may_change

# Whoever is shut out, or is of a company that is, administers nothing: not even the lift. A lock on everything, a
# device or a zone leaves administration alone, or nobody could lift it.
_unshut if {
	is_array(input.locks)
	every lock in input.locks {
		lock.scope in ["all", "device", "site"]
	}
}

deny contains {"code": "lock.active", "msg": "access is locked"} if not _unshut

deny contains {"code": "identity.expired", "msg": "your sign-in has ended", "remedy": "step_up"} if not facts.identity_live

_mfa := facts.settings.admin_mfa

_mfa_fresh if input.admin.mutating == false

_mfa_fresh if _mfa.required == false

_mfa_fresh if {
	_mfa.required == true
	some method in input.subject.authn.methods
	method in _mfa.methods
	lib.fresh(input.subject.authn.at, facts.now, _mfa.max_age_s)
	lib.fresh(input.subject.authn.at, facts.now, 900)
}

deny contains {
	"code": "mfa.stale",
	"msg": "a fresh second factor is required",
	"remedy": "step_up",
} if not _mfa_fresh

# Operations the site names take a second person's consent.
_one_is_enough if {
	is_string(input.admin.operation)
	is_array(facts.settings.second_person)
	every operation in facts.settings.second_person {
		is_string(operation)
		operation != input.admin.operation
	}
}

_consented if _one_is_enough

_consented if {
	is_string(input.subject.id)
	count({a | some a in input.approval.approvals; is_string(a)} - {input.subject.id}) >= 1
}

deny contains {
	"code": "admin.second_person",
	"msg": "this needs the consent of a second person",
	"remedy": "approve",
} if not _consented

obligations contains {"notify": false} if input.admin.mutating == false
