package sallyport.session.open

import data.policy.session.open as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
