# Assembles every decision from a point's allow, deny and obligations, and holds the comparisons
# that are safe across types. In Rego null < 5 and 5 < "x" hold, and null == null: hence is_number.
package sallyport.lib

# from <= t < to
between(from, t, to) if {
	is_number(from)
	is_number(t)
	is_number(to)
	from <= t
	t < to
}

# -5 <= now - at <= limit: five seconds for clocks that disagree, and no event from the future.
fresh(at, now, limit) if {
	is_number(at)
	is_number(now)
	is_number(limit)
	age := now - at
	age >= -5
	age <= limit
}

# Both strings, and equal.
same(a, b) if {
	is_string(a)
	a == b
}

_merge := {
	"max_duration_s": "min",
	"not_after": "min",
	"idle_timeout_s": "min",
	"reeval_after_s": "min",
	"max_bandwidth_bps": "min",
	"max_bytes": "min",
	"max_streams": "min",
	"ot_level": "min",
	"approvals": "max",
	"record": "or",
	"justification": "or",
	"supervise": "or",
	"notify": "or",
	"ot_each": "or",
	"processes": "both",
	"methods": "both",
	"ot_windows": "all",
}

_merged("min", values) := min(values) if {
	every value in values {
		is_number(value)
	}
}

_merged("max", values) := max(values) if {
	every value in values {
		is_number(value)
	}
}

_merged("or", values) := true in values if {
	every value in values {
		is_boolean(value)
	}
}

_merged("both", values) := sort(intersection({{x | some x in value} | some value in values})) if {
	every value in values {
		_is_list(value)
	}
}

_merged("all", values) := sort({windows | some value in values; some windows in value}) if {
	every value in values {
		_is_list(value)
	}
}

_is_list(value) if is_array(value)

_is_list(value) if is_set(value)

# Where no key is said twice the union is the merge, and cheap. A value of the wrong type has no
# merged value: the key is lost here, and the count tells. An unknown key is kept, to be denied.
_bound(obligations, union, said) := union if {
	count(union) == said
} else := {key: value |
	some key, _ in union
	values := {x | some obligation in obligations; x := obligation[key]}
	value := _merged(object.get(_merge, key, "keep"), values)
}

_merged("keep", values) := min(values)

_reason_ok(reason) if {
	is_object(reason)
	is_string(reason.code)
}

_denial_ok(denial) if {
	is_object(denial)
	is_string(denial.code)
	is_string(denial.msg)
}

# The rules spoke in the form this library reads; else nobody gets in on a guess.
_sound(allow, deny, union, merged) if {
	is_set(allow)
	is_set(deny)
	count(merged) == count(union)
	every reason in allow {
		_reason_ok(reason)
	}
	every denial in deny {
		_denial_ok(denial)
	}
}

_broken(allow, deny, union, merged) := set() if {
	_sound(allow, deny, union, merged)
} else := {{"code": "policy.error", "msg": "the policy could not decide"}}

_unknown(union) := {{
	"code": "obligation.unknown",
	"msg": "the policy binds access to something this library does not know",
	"ref": key,
} |
	some key, _ in union
	not _merge[key]
}

_asks_for_grant(deny) if {
	some denial in deny
	denial.remedy == "request_grant"
}

_unmatched(allow, deny) := {{"code": "policy.no_match", "msg": "no rule allows this"}} if {
	count(allow) == 0
	not _asks_for_grant(deny)
} else := set()

_effect(denials) := "challenge" if {
	every denial in denials {
		is_string(denial.remedy)
	}
} else := "deny"

_refusal(allow, denials, merged) := {
	"v": 1,
	"effect": _effect(denials),
	"allow": false,
	"reasons": sort({reason | some reason in allow; _reason_ok(reason)}),
	"denials": sort(denials),
	"obligations": merged,
}

_union(obligations) := object.union_n(array.concat([{}], [obligation | some obligation in obligations]))

_said(obligations) := sum([count(obligation) | some obligation in obligations])

# What all obligations come to; undefined where a key has no merged value. One alone is its own merge.
_binding(obligations) := binding if {
	count(obligations) == 1
	binding := max(obligations)
	is_object(binding)
} else := merged if {
	union := _union(obligations)
	merged := _bound(obligations, union, _said(obligations))
	count(merged) == count(union)
}

# Nothing in it but keys this library knows.
# The keys of _merge once more, as an array: an object or a set would be hashed anew for every decision.
_all_known(merged) if {
	known := [
		"max_duration_s",
		"not_after",
		"idle_timeout_s",
		"reeval_after_s",
		"max_bandwidth_bps",
		"max_bytes",
		"max_streams",
		"ot_level",
		"approvals",
		"record",
		"justification",
		"supervise",
		"notify",
		"ot_each",
		"processes",
		"methods",
		"ot_windows",
	]
	count([key | some key in known; _ = merged[key]]) == count(merged)
}

# The one document every entry point returns. allow, deny and obligations are sets; an undefined
# one leaves the decision undefined, which the host reads as a denial. First what every allow goes
# through, then what every denial in the right form does, in as few steps as it takes; whatever is
# amiss there is put into words below.
decision(allow, deny, obligations) := {
	"v": 1,
	"effect": "allow",
	"allow": true,
	"reasons": sort(allow),
	"denials": [],
	"obligations": merged,
} if {
	is_set(obligations)
	is_set(deny)
	count(deny) == 0
	is_set(allow)
	count(allow) > 0
	every reason in allow {
		_reason_ok(reason)
	}
	merged := _binding(obligations)
	_all_known(merged)
} else := {
	"v": 1,
	"effect": _effect(denials),
	"allow": false,
	"reasons": sort(allow),
	"denials": sort(denials),
	"obligations": merged,
} if {
	is_set(obligations)
	is_set(allow)
	is_set(deny)
	count(deny) > 0
	every denial in deny {
		_denial_ok(denial)
	}
	every reason in allow {
		_reason_ok(reason)
	}
	merged := _binding(obligations)
	_all_known(merged)
	denials := deny | _unmatched(allow, deny)
} else := document if {
	is_set(obligations)
	union := _union(obligations)
	merged := _bound(obligations, union, _said(obligations))
	said := {denial | some denial in deny; _denial_ok(denial)}
	more := (_broken(allow, deny, union, merged) | _unknown(union)) | _unmatched(allow, deny)
	document := _refusal(allow, said | more, merged)
}
