package sallyport.grant.approve

import data.policy.grant.approve as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
