package sallyport.device.enroll

import data.policy.device.enroll as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
