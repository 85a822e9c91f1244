# A quarantined device keeps its tunnel, so that it can be looked after, and can be reached for nothing.
package policy.tunnel.connect

import data.policy.facts
import data.sallyport.lib

_peer if lib.same(input.tunnel.peer_device_id, input.device.id)

_certificate_live if lib.between(0, facts.now, input.device.cert.not_after)

_quarantined if input.device.state == "quarantined"

_state_ok if facts.device_active

_state_ok if _quarantined

allow contains {"code": "device.active"} if facts.device_active

allow contains {"code": "device.quarantined_tunnel"} if _quarantined

deny contains {"code": "zone.unknown", "msg": "the zone is unknown or its rules are incomplete"} if not facts.zone_known

deny contains {"code": "tunnel.peer", "msg": "the tunnel is not the device’s own"} if not _peer

deny contains {"code": "device.certificate_expired", "msg": "the certificate of the device has ended"} if not _certificate_live

deny contains facts.device_denial if not _state_ok

deny contains {"code": "lock.active", "msg": "access is locked"} if not facts.unlocked

deny contains {
	"code": "tls.not_pq",
	"msg": "this zone requires a post-quantum key exchange on every hop",
	"remedy": "upgrade",
} if not facts.device_pq_ok

obligations contains {"max_duration_s": facts.settings.cert_ttl_s, "not_after": input.device.cert.not_after}

obligations contains {"processes": []} if not facts.device_active
