package sallyport.ot.verb

import data.policy.ot.verb as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
