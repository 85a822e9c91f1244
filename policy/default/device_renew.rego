# An expired certificate renews itself once, within the grace, with the same key; later a person decides.
package policy.device.renew

import data.policy.facts
import data.sallyport.lib

_same if lib.same(input.renew.device_id, input.device.id)

_chain if input.renew.chain_ok == true

_current if {
	_chain
	is_number(input.renew.expired_s)
	input.renew.expired_s <= 0
	lib.between(0, facts.now, input.renew.not_after)
}

_late if {
	_chain
	input.renew.same_key == true
	input.renew.late_used == false
	is_number(input.renew.expired_s)
	is_number(facts.settings.renew_grace_s)
	input.renew.expired_s <= facts.settings.renew_grace_s
	is_number(input.renew.not_after)
	is_number(facts.now)
	facts.now - input.renew.not_after <= facts.settings.renew_grace_s
}

_in_time if _current

_in_time if _late

allow contains {"code": "renew.current"} if _current

allow contains {"code": "renew.late"} if {
	_late
	not _current
}

deny contains {"code": "zone.unknown", "msg": "the zone is unknown or its rules are incomplete"} if not facts.zone_known

deny contains {"code": "renew.not_same", "msg": "the certificate names another device"} if not _same

deny contains {"code": "renew.chain", "msg": "the certificate presented is not a valid one of this device"} if not _chain

deny contains {
	"code": "renew.too_late",
	"msg": "the certificate ended too long ago to renew by itself",
	"remedy": "approve",
} if not _in_time

deny contains facts.device_denial if not facts.device_active

deny contains {"code": "lock.active", "msg": "access is locked"} if not facts.unlocked

obligations contains {"max_duration_s": facts.settings.cert_ttl_s}
