# The rules of session.open without the age of the second factor, and with an end.
package policy.session.reevaluate

import data.policy.access
import data.policy.facts
import data.sallyport.lib

allow := access.allow

deny contains denial if some denial in access.deny

deny contains {"code": "session.too_long", "msg": "the session has reached its longest time"} if not _within_time

_within_time if lib.between(input.session.opened_at, facts.now, input.session.opened_at + facts.zone.max_session_s)

obligations := access.obligations
