# How obligations of several rules come together, and what of a rule's own form is refused.
package sallyport.lib_test

import data.sallyport.lib

_allow := {{"code": "test.allowed"}}

_bound(obligations) := lib.decision(_allow, set(), obligations).obligations

_codes(obligations) := [denial.code | some denial in lib.decision(_allow, set(), obligations).denials]

test_numbers_take_the_smaller if {
	_bound({{"max_duration_s": 60, "max_bytes": 9}, {"max_duration_s": 30}}) == {"max_duration_s": 30, "max_bytes": 9}
}

test_approvals_take_the_larger if _bound({{"approvals": 1}, {"approvals": 2}}) == {"approvals": 2}

test_duties_take_any if {
	_bound({{"record": false, "notify": false}, {"record": true}}) == {
		"record": true,
		"notify": false,
	}
}

test_lists_take_what_all_name if {
	_bound({{"processes": ["plc", "hmi"]}, {"processes": ["hmi"]}}) == {"processes": ["hmi"]}
	_bound({{"methods": {"GET"}}, {"methods": ["POST"]}}) == {"methods": []}
}

test_address_windows_all_hold if {
	_bound({{"ot_windows": [[{"unit": 1}]]}, {"ot_windows": [[{"unit": 2}]]}}) == {"ot_windows": [[{"unit": 1}], [{"unit": 2}]]}
}

test_a_value_of_the_wrong_type_denies if {
	every wrong in [
		{"max_duration_s": null},
		{"approvals": "2"},
		{"record": 0},
		{"processes": "plc"},
		{"ot_windows": null},
	] {
		some key, _ in wrong
		right := {
			"max_duration_s": 60,
			"approvals": 1,
			"record": true,
			"processes": ["plc"],
			"ot_windows": [],
		}[key]
		_codes({wrong, {key: right}}) == ["policy.error"]
	}
}

test_an_unknown_obligation_denies if {
	_codes({{"max_durations": 60}}) == ["obligation.unknown"]
	_codes({{"max_durations": 60}, {"max_durations": 30, "record": true}}) == ["obligation.unknown"]
}

test_an_allow_without_a_code_denies if {
	decision := lib.decision({{"why": "because"}}, set(), {{"record": true}})
	decision.allow == false
	[denial.code | some denial in decision.denials] == ["policy.error"]
}

test_a_denial_without_words_denies if {
	decision := lib.decision(_allow, {{"code": "test.denied"}}, {{"record": true}})
	decision.allow == false
	[denial.code | some denial in decision.denials] == ["policy.error"]
}

# A mask names parts of a record by pointer; what decides is never among them.
test_masks_are_pointers if {
	every path in data.system.log.mask {
		startswith(path, "/input/")
	}
}
