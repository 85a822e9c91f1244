# For enrolment and renewal max_duration_s is the longest life of the certificate.
package policy.device.enroll

import data.policy.facts
import data.sallyport.lib

_token := input.enroll.token

_token_known if is_string(_token.id)

_token_live if lib.between(0, facts.now, _token.expires_at)

_token_unspent if {
	is_number(_token.uses_left)
	_token.uses_left >= 1
}

_token_here if lib.same(_token.zone, input.device.zone)

_key_ok if {
	is_string(input.enroll.key.alg)
	input.enroll.key.alg in facts.settings.key_algs
}

_state_ok if input.device.state in ["pending", "active"]

_serial_ok if facts.zone.serial_required == false

_serial_ok if lib.same(input.device.labels.serial, input.enroll.claimed_serial)

allow contains {"code": "enroll.token", "ref": _token.id} if {
	_token_known
	_token_live
	_token_unspent
	_token_here
}

deny contains {"code": "zone.unknown", "msg": "the zone is unknown or its rules are incomplete"} if not facts.zone_known

deny contains {"code": "enroll.token_none", "msg": "there is no such enrolment token"} if not _token_known

deny contains {"code": "enroll.token_expired", "msg": "the enrolment token has ended"} if not _token_live

deny contains {"code": "enroll.token_spent", "msg": "the enrolment token has been used"} if not _token_unspent

deny contains {"code": "enroll.token_zone", "msg": "the enrolment token belongs to another zone"} if not _token_here

deny contains {"code": "enroll.key_refused", "msg": "keys of this kind are not accepted here"} if not _key_ok

deny contains {"code": "enroll.serial_mismatch", "msg": "the claimed serial number is not the one expected"} if not _serial_ok

deny contains {
	"code": "attestation.missing",
	"msg": "the zone requires a device whose hardware is attested",
	"remedy": "attest",
} if not facts.attested

deny contains facts.device_denial if not _state_ok

deny contains {"code": "lock.active", "msg": "access is locked"} if not facts.unlocked

obligations contains {"max_duration_s": facts.settings.cert_ttl_s}
