package policy.grant.request

import data.policy.facts

allow contains {"code": "request.eligible"} if facts.party_eligible

deny contains {"code": "zone.unknown", "msg": "the zone is unknown or its rules are incomplete"} if not facts.zone_known

deny contains {"code": "requester.not_eligible", "msg": "your party may not be admitted to this zone"} if not facts.party_eligible

deny contains {"code": "lock.active", "msg": "access is locked"} if not facts.unlocked

deny contains facts.device_denial if not facts.device_active

deny contains {"code": "identity.expired", "msg": "your sign-in has ended", "remedy": "step_up"} if not facts.identity_live

deny contains {"code": "identity.kind", "msg": "sessions are for people and services, not for devices"} if not _visitor

_visitor if input.subject.kind in ["human", "service"]

deny contains {"code": "request.reason_missing", "msg": "a reason is required"} if not _reasoned

_reasoned if {
	is_string(input.request.reason)
	input.request.reason != ""
}

deny contains {"code": "request.process_missing", "msg": "the request names no process"} if not _names_process

_names_process if {
	is_array(input.request.processes)
	count(input.request.processes) > 0
}

deny contains {"code": "request.ticket_missing", "msg": "this zone requires a ticket"} if not _ticketed

_ticketed if facts.zone.ticket_required == false

_ticketed if {
	is_string(input.request.ticket)
	input.request.ticket != ""
}

deny contains {"code": "request.duration", "msg": "the time asked for is longer than the zone allows"} if not _short_enough

_short_enough if {
	is_number(input.request.duration_s)
	input.request.duration_s > 0
	input.request.duration_s <= _longest
}

_longest := facts.zone.max_grant_s if {
	input.request.ot_level in [0, 1]
} else := facts.zone.max_write_s if {
	input.request.ot_level == 2
}

obligations contains {
	"max_duration_s": _longest,
	"approvals": facts.zone.approvals,
	"ot_level": input.request.ot_level,
}

obligations contains {"record": true, "supervise": true, "justification": true, "notify": true, "ot_each": true} if not facts.ordinary

obligations contains {
	"record": facts.recorded,
	"supervise": false,
	"justification": true,
	"notify": facts.recorded,
	"ot_each": false,
} if {
	facts.ordinary
}
