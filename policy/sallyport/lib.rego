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

_reason_ok(reason) if {
	is_object(reason)
	is_string(reason.code)
}

_denial_ok(denial) if {
	is_object(denial)
	is_string(denial.code)
	is_string(denial.msg)
}

# What the rules said is not in the form this library reads: nobody gets in on a guess.
_malformed(allow, _, _, _) if {
	some reason in allow
	not _reason_ok(reason)
}

_malformed(_, deny, _, _) if {
	some denial in deny
	not _denial_ok(denial)
}

_malformed(_, _, obligations, _) if {
	some obligation in obligations
	not is_object(obligation)
}

_malformed(_, _, obligations, merged) if {
	some obligation in obligations
	some key, _ in obligation
	_merge[key]
	not _has(merged, key)
}

_malformed(allow, deny, obligations, _) if not _sets(allow, deny, obligations)

_sets(allow, deny, obligations) if {
	is_set(allow)
	is_set(deny)
	is_set(obligations)
}

_has(object, key) if {
	some name, _ in object
	name == key
}

_own(allow, deny, obligations, merged) := ({denial |
	some denial in [
	{"code": "policy.error", "msg": "the policy could not decide"} |
		_malformed(allow, deny, obligations, merged)
	]
} | {{"code": "obligation.unknown", "msg": "the policy binds access to something this library does not know", "ref": key} |
	some obligation in obligations
	some key, _ in obligation
	not _merge[key]
}) | {{"code": "policy.no_match", "msg": "no rule allows this"} |
	count(allow) == 0
	not _asks_for_grant(deny)
}

_asks_for_grant(deny) if {
	some denial in deny
	denial.remedy == "request_grant"
}

_effect(allow, denials) := "allow" if {
	count(denials) == 0
	count(allow) > 0
} else := "challenge" if {
	count(denials) > 0
	every denial in denials {
		is_string(denial.remedy)
	}
} else := "deny"

# The one document every entry point returns. allow, deny and obligations are sets; an undefined
# one leaves the decision undefined, which the host reads as a denial.
decision(allow, deny, obligations) := {
	"v": 1,
	"effect": effect,
	"allow": effect == "allow",
	"reasons": sort({reason | some reason in allow; _reason_ok(reason)}),
	"denials": sort(denials),
	"obligations": merged,
} if {
	keys := {key | some obligation in obligations; some key, _ in obligation}
	merged := {key: value |
		some key in keys
		value := _merged(_merge[key], {x | some obligation in obligations; x := obligation[key]})
	}
	denials := {denial | some denial in deny; _denial_ok(denial)} | _own(allow, deny, obligations, merged)
	effect := _effect(allow, denials)
}
