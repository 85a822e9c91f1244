# What several points ask alike. A helper is true only on facts that are present and of the right
# type; a rule that denies says `not facts.x`, so that a missing fact denies too. Alternatives are an
# else chain, which stops at the first that holds, and what is mostly untrue has a default: the module
# remembers the value of a rule, but not that it has none.
package policy.facts

import data.sallyport.lib

now := input.time.epoch_s

zone := data.site.zones[input.device.zone]

settings := data.site.settings

zone_known if {
	is_string(input.device.zone)
	rules := zone
	is_number(rules.criticality)
	is_number(rules.approvals)
	is_number(rules.max_session_s)
	is_number(rules.max_grant_s)
	is_number(rules.max_write_s)
	is_number(rules.session_bytes)
	is_number(data.site.settings.cert_ttl_s)
}

# Zones below criticality 3 may do with less; unknown criticality is not below 3.
default ordinary := false

ordinary if {
	is_number(zone.criticality)
	zone.criticality < 3
}

# Recorded, with a notice before it: where the zone says so, and wherever a session is not ordinary.
default recorded := true

recorded := false if {
	ordinary == true
	zone.recorded == false
}

device_active if input.device.state == "active"

device_denial := {"code": "device.quarantined", "msg": "the device is in quarantine"} if {
	input.device.state == "quarantined"
} else := {"code": "device.not_active", "msg": "the device is not in service"}

unlocked if {
	is_array(input.locks)
	count(input.locks) == 0
}

identity_live if {
	is_number(now)
	end := input.subject.token_exp
	is_number(end)
	now < end
}

party_eligible if {
	party := input.subject.party
	is_string(party)
	party in zone.requesters
}

agent_current if {
	version := input.device.agent_version_int
	is_number(version)
	least := data.site.settings.min_agent_int
	is_number(least)
	version >= least
}

mfa_fresh if {
	zone.mfa.required == false
} else if {
	zone.mfa.required == true
	some method in input.subject.authn.methods
	method in zone.mfa.methods
	lib.fresh(input.subject.authn.at, now, zone.mfa.max_age_s)
}

# An approval is worth the five minutes after a second factor, or the zone's limit if that is shorter.
mfa_fresh_to_approve if {
	zone.mfa.required == false
} else if {
	mfa_fresh
	lib.fresh(input.subject.authn.at, now, 300)
}

default break_glass := false

break_glass if {
	lib.between(0, now, input.subject.break_glass.not_after)
	is_string(input.subject.id)
	count({a | some a in input.subject.break_glass.approvers; is_string(a)} - {input.subject.id}) >= 1
}

window_open if {
	zone.windows_required == false
	is_array(zone.windows)
} else if {
	count(window_ends) > 0
} else if {
	break_glass
}

# Epoch seconds at which the windows open now will close. A window may run past midnight (to_min up to 2880).
window_ends contains end if {
	some window in zone.windows
	some day, offset in {input.time.local.weekday: 0, _yesterday: 1440}
	day in window.days
	minute := input.time.local.minute + offset
	lib.between(window.from_min, minute, window.to_min)
	end := ((now - input.time.local.second) - (minute * 60)) + (window.to_min * 60)
}

_yesterday := (input.time.local.weekday + 6) % 7

posture_ok(posture) if {
	posture.ok == true
	lib.fresh(posture.checked_at, now, settings.posture_max_age_s)
}

client_posture_ok if {
	zone.client_posture_required == false
} else if {
	posture_ok(input.client.posture)
}

device_posture_ok if {
	zone.device_posture_required == false
} else if {
	posture_ok(input.device.posture)
}

pq_ok if {
	zone.pq_required == false
} else if {
	input.tls.client.pq == true
	input.tls.device.pq == true
}

device_pq_ok if {
	zone.pq_required == false
} else if {
	input.tls.device.pq == true
}

attested if {
	zone.attestation_required == false
} else if {
	input.device.attestation.verified == true
}
