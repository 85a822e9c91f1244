package policy.http.request

import data.policy.access

_method_ok if {
	is_string(input.http.method)
	is_string(input.http.path)
	input.http.method in data.site.http.methods
}

allow contains {"code": "http.session"} if {
	_method_ok
	access.entitled
}

deny contains denial if some denial in access.deny

deny contains {"code": "http.method_refused", "msg": "this kind of web request is not allowed here"} if not _method_ok

obligations contains obligation if some obligation in access.obligations

obligations contains {"methods": data.site.http.methods}
