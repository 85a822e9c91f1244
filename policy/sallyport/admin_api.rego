package sallyport.admin.api

import data.policy.admin.api as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
