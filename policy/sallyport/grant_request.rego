package sallyport.grant.request

import data.policy.grant.request as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
