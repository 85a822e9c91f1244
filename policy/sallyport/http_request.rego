package sallyport.http.request

import data.policy.http.request as rules
import data.sallyport.lib

decision := lib.decision(rules.allow, rules.deny, rules.obligations)
