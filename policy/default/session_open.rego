package policy.session.open

import data.policy.access
import data.policy.facts

allow := access.allow

deny contains denial if some denial in access.deny

deny contains {
	"code": "mfa.stale",
	"msg": "a fresh second factor is required",
	"remedy": "step_up",
} if not facts.mfa_fresh

obligations := access.obligations
