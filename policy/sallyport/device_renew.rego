package sallyport.device.renew

import data.policy.device.renew as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
