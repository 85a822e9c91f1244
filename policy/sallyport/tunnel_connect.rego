package sallyport.tunnel.connect

import data.policy.tunnel.connect as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
