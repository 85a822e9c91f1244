# Every row of test/vectors/decisions, decided by OPA's own engine; test/policy decides them by WASM.
package sallyport.vectors_test

decided["device.enroll"] := data.sallyport.device.enroll.decision

decided["device.renew"] := data.sallyport.device.renew.decision

decided["tunnel.connect"] := data.sallyport.tunnel.connect.decision

decided["grant.request"] := data.sallyport.grant.request.decision

decided["grant.approve"] := data.sallyport.grant.approve.decision

decided["session.open"] := data.sallyport.session.open.decision

decided["session.reevaluate"] := data.sallyport.session.reevaluate.decision

decided["ot.verb"] := data.sallyport.ot.verb.decision

decided["http.request"] := data.sallyport.http.request.decision

decided["admin.api"] := data.sallyport.admin.api.decision

results[name] := decision if {
	some name, vector in data.vectors
	decision := decided[vector.point] with input as vector.input with data.site as vector.site
}

_codes(decision) := [entry.code | some entry in decision.reasons] if decision.allow

_codes(decision) := [entry.code | some entry in decision.denials] if not decision.allow

test_vectors[name] if {
	some name, vector in data.vectors
	decision := results[name]
	decision.effect == vector.effect
	_codes(decision) == vector.codes
	every key, value in vector.obligations {
		decision.obligations[key] == value
	}
}
