# One operation on a control protocol. What is not known to read is a write.
package policy.ot.verb

import data.policy.access

_reads if {
	input.ot.op == "read"
	access.readable
}

_writes if {
	input.ot.op in ["write", "control", "unknown"]
	_covered
}

# Every address touched lies in one window of one write grant.
_covered if {
	is_number(input.ot.unit)
	is_number(input.ot.address)
	is_number(input.ot.count)
	input.ot.unit > 0
	input.ot.count >= 1
	some at in access.write_grants
	some window in input.grants[at].ot_windows
	is_number(window.from)
	is_number(window.to)
	window.unit == input.ot.unit
	window.from <= input.ot.address
	(input.ot.address + input.ot.count) - 1 <= window.to
}

_permitted if _reads

_permitted if _writes

allow contains {"code": "ot.read"} if _reads

allow contains {"code": "ot.write"} if _writes

deny contains denial if some denial in access.deny

deny contains {
	"code": "ot.not_permitted",
	"msg": "this operation is beyond what your grants permit",
	"remedy": "request_grant",
} if not _permitted

obligations := access.obligations
