package sallyport.session.reevaluate

import data.policy.session.reevaluate as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
