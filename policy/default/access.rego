# Reaching a process: shared by session.open, session.reevaluate, ot.verb and http.request.
package policy.access

import data.policy.facts
import data.sallyport.lib

# Grants are named by their place in the input: a set of whole grants costs a hash of each, many times over.
_mine contains at if {
	device := input.device.id
	is_string(device)
	process := input.process.id
	is_string(process)
	subject := input.subject.id
	some at, g in input.grants
	lib.same(g.subject, subject)
	device in g.devices
	process in g.processes
}

_approvals_needed := 0 if {
	facts.break_glass
} else := facts.zone.approvals

_approved(g) if {
	is_string(g.requester)
	is_number(_approvals_needed)
	count(_agreed(g) - {g.requester, g.subject}) >= _approvals_needed
}

# Where the zone wants signatures, an approval without one is none; where it does not say, nothing is.
_agreed(g) := {a | some a in g.approvers; is_string(a)} if {
	facts.zone.signed_approvals == false
} else := {a | some a in g.approvers; is_string(a)} & {a | some a in g.signers; is_string(a)} if {
	facts.zone.signed_approvals == true
}

_ticketed(g) if {
	facts.zone.ticket_required == false
} else if {
	g.ticket.valid == true
}

_in_time(g) if {
	lib.between(g.not_before, facts.now, g.not_after)
	lib.between(g.not_before, facts.now, g.expires_at)
}

_complete(g) if {
	is_string(g.id)
	is_array(g.ot_windows)
	_bytes_stated(g)
}

# null: the grant states no limit of its own, and the zone's binds.
_bytes_stated(g) if {
	is_number(g.max_bytes)
} else if {
	g.max_bytes == null
}

live contains at if {
	some at in _mine
	g := input.grants[at]
	g.state in ["approved", "active"]
	_in_time(g)
	_approved(g)
	_ticketed(g)
	_complete(g)
}

# The grant a session stands on: the one that ends last.
base := input.grants[last[2]] if {
	last := max([[g.expires_at, g.id, at] | some at in live; g := input.grants[at]])
}

standing contains s.id if {
	input.subject.party == "staff"
	kind := input.process.kind
	is_string(kind)
	some s in facts.zone.standing
	is_string(s.id)
	s.group in input.subject.groups
	kind in s.kinds
}

entitled if {
	count(live) > 0
} else if {
	count(standing) > 0
}

allow contains {"code": "grant.live", "ref": base.id}

allow contains {"code": "standing.access", "ref": id} if some id in standing

_newest := max([[input.grants[at].not_before, input.grants[at].id, at] | some at in _mine])

_latest := input.grants[_newest[2]]

_early(g) if {
	is_number(facts.now)
	is_number(g.not_before)
	facts.now < g.not_before
}

_pending if {
	some at in _mine
	input.grants[at].state == "requested"
}

_held if _latest.state in ["approved", "active"]

default _grant_denial := {
	"code": "grant.none",
	"msg": "you hold no grant for this process",
	"remedy": "request_grant",
}

_grant_denial := {
	"code": "grant.pending",
	"msg": "your request waits for approval",
	"remedy": "approve",
} if {
	_pending
} else := {
	"code": "grant.revoked",
	"msg": "your grant was revoked",
	"remedy": "request_grant",
} if {
	_latest.state == "revoked"
} else := {
	"code": "grant.not_yet",
	"msg": "your grant has not begun",
} if {
	_held
	_early(_latest)
} else := {
	"code": "grant.expired",
	"msg": "your grant has ended",
	"remedy": "request_grant",
} if {
	_latest.state == "spent"
} else := {
	"code": "grant.expired",
	"msg": "your grant has ended",
	"remedy": "request_grant",
} if {
	_held
	not _in_time(_latest)
} else := {
	"code": "grant.unapproved",
	"msg": "your grant has fewer approvals than the zone requires",
	"remedy": "request_grant",
} if {
	_held
	not _approved(_latest)
} else := {
	"code": "grant.ticket",
	"msg": "this zone requires a valid ticket on the grant",
	"remedy": "request_grant",
} if {
	_held
	not _ticketed(_latest)
} else := {
	"code": "grant.incomplete",
	"msg": "the record of your grant is incomplete",
} if {
	_held
	not _complete(_latest)
}

deny contains _grant_denial if not entitled

deny contains {"code": "zone.unknown", "msg": "the zone is unknown or its rules are incomplete"} if not facts.zone_known

deny contains {"code": "requester.not_eligible", "msg": "your party may not be admitted to this zone"} if not facts.party_eligible

deny contains {"code": "lock.active", "msg": "access is locked"} if not facts.unlocked

deny contains facts.device_denial if not input.device.state == "active"

deny contains {"code": "device.island", "msg": "the device is cut off by its owner"} if not input.device.island == false

deny contains {"code": "device.certificate_expired", "msg": "the certificate of the device has ended"} if not _certificate_live

_certificate_live if lib.between(0, facts.now, input.device.cert.not_after)

deny contains {
	"code": "agent.too_old",
	"msg": "the agent on the device is older than this site accepts",
	"remedy": "upgrade",
} if not facts.agent_current

deny contains {"code": "identity.expired", "msg": "your sign-in has ended", "remedy": "step_up"} if not facts.identity_live

deny contains {"code": "identity.kind", "msg": "sessions are for people and services, not for devices"} if not _visitor

_visitor if input.subject.kind in ["human", "service"]

deny contains {
	"code": "window.closed",
	"msg": "the maintenance window of the zone is closed",
	"remedy": "request_window",
} if not facts.window_open

deny contains {"code": "client.unmanaged", "msg": "this zone accepts managed computers only"} if not _client_managed

_client_managed if {
	facts.zone.managed_client_only == false
} else if {
	input.client.managed == true
}

deny contains {"code": "client.network", "msg": "this zone cannot be reached from your network"} if not _client_near

_client_near if {
	some cidr in facts.zone.client_cidrs
	net.cidr_contains(cidr, input.client.ip)
}

deny contains {
	"code": "client.posture",
	"msg": "your computer has not passed a recent health check",
	"remedy": "attest",
} if not facts.client_posture_ok

deny contains {
	"code": "device.posture",
	"msg": "the device has not passed a recent health check",
	"remedy": "attest",
} if not facts.device_posture_ok

deny contains {
	"code": "consent.missing",
	"msg": "the owner of the device has not consented",
	"remedy": "consent",
} if not _consented

_consented if {
	facts.zone.consent_required == false
} else if {
	is_string(input.device.consent.by)
	lib.fresh(input.device.consent.at, facts.now, facts.zone.max_session_s)
}

deny contains {
	"code": "attestation.missing",
	"msg": "the zone requires a device whose hardware is attested",
	"remedy": "attest",
} if not facts.attested

deny contains {
	"code": "tls.not_pq",
	"msg": "this zone requires a post-quantum key exchange on every hop",
	"remedy": "upgrade",
} if not facts.pq_ok

# The process. A LAN target has no owner to observe, so the zone must say that such targets may be reached.
_bound if {
	input.process.locality == "lan"
	facts.zone.lan_targets == true
} else if {
	process := input.process
	process.locality in ["device", "spawned"]
	_phase_ok
	_expected
	match := process.expect.match
	every owner in array.concat([process.observed], process.observed.others) {
		every fact in match {
			owner[fact] != null
			owner[fact] in input.process.expect[fact]
		}
	}
}

# Before the first byte of a stream only the accepted socket's owner counts; else the listener's may stand in.
# A web request comes before the stream that carries it, which is decided by itself.
_phase_ok if {
	input.process.observed.phase == "accepted"
} else if {
	input.process.observed.phase == "listener"
	input.action in ["session.open", "http.request"]
} else if {
	input.process.observed.phase == "listener"
	is_string(input.session.trigger)
	input.session.trigger != "stream"
}

_expected if {
	"sha256" in input.process.expect.match
} else if {
	"image" in input.process.expect.match
}

_observed if {
	is_object(input.process.observed)
	_phase_ok
}

_process_denial := {
	"code": "process.lan_refused",
	"msg": "targets beside the device are not allowed in this zone",
} if {
	input.process.locality == "lan"
} else := {
	"code": "process.no_expectation",
	"msg": "no executable has been approved for this process",
} if {
	not _expected
} else := {
	"code": "process.unobserved",
	"msg": "the device has not reported what answers",
} if {
	not _observed
} else := {
	"code": "process.mismatch",
	"msg": "an executable other than the approved one answers",
}

deny contains _process_denial if not _bound

# What an allow binds to, in one object: every further one is a set to merge.
obligations contains {
	"max_duration_s": facts.zone.max_session_s,
	"not_after": min(_limits),
	"ot_level": _ot_level,
	"ot_windows": array.concat(_base_windows, _write_windows),
	"record": _recorded,
	"supervise": watched,
	"justification": watched,
	"notify": _recorded,
	"ot_each": watched,
	"max_bytes": _max_bytes,
	"reeval_after_s": _reeval_after_s(watched),
} if {
	watched := facts.ordinary == false
}

# A grant that states no limit has the zone's.
_max_bytes := base.max_bytes if {
	is_number(base.max_bytes)
} else := facts.zone.session_bytes

_reeval_after_s(watched) := 60 if {
	watched
} else := 300

default _recorded := true

_recorded := false if {
	facts.recorded == false
	not facts.break_glass
}

# The ends that apply; a missing one leaves the obligation without a number, which denies.
_limits contains base.expires_at if count(standing) == 0

_limits contains facts.now + facts.zone.max_session_s

_limits contains max(facts.window_ends) if not _any_time

_limits contains max({input.grants[at].expires_at | some at in write_grants}) if count(write_grants) > 0

_any_time if {
	facts.zone.windows_required == false
} else if {
	facts.break_glass
}

# Level 2 takes a second grant, no longer than the first, approved for write, with the addresses it names.
write_grants contains at if {
	some at in live
	w := input.grants[at]
	w.ot_level == 2
	w.id != base.id
	w.expires_at <= base.expires_at
	lib.between(w.not_before, facts.now, w.not_before + facts.zone.max_write_s)
	count(w.ot_windows) > 0
}

default _ot_level := 0

_ot_level := 2 if {
	count(write_grants) > 0
} else := 1 if {
	base.ot_level in [1, 2]
} else := 1 if {
	count(standing) > 0
}

readable if _ot_level in [1, 2]

default _base_windows := [[]]

_base_windows := [base.ot_windows] if {
	count(base.ot_windows) > 0
} else := [] if {
	is_array(base.ot_windows)
} else := [] if {
	count(standing) > 0
}

# The addresses of all write grants together.
default _write_windows := []

_write_windows := [[window | some at in write_grants; some window in input.grants[at].ot_windows]] if {
	count(write_grants) > 0
}
