"""What schemathesis can't be told in its configuration."""

import ipaddress
import itertools
import json

import schemathesis

ADDRESSES = map(ipaddress.ip_address, itertools.count(int(ipaddress.ip_address("10.0.0.1"))))
FORM = "application/x-www-form-urlencoded"


@schemathesis.hook
def before_call(context, case, kwargs):
    # An address of its own, as the gateway believes its proxy.
    case.headers["X-Forwarded-For"] = str(next(ADDRESSES))
    # In forms an object is JSON, as the description says under "encoding".
    if case.media_type == FORM and isinstance(case.body, dict):
        if isinstance(case.body.get("spec"), dict):
            case.body["spec"] = json.dumps(case.body["spec"])
