"""What schemathesis sends and checks beyond what it knows of by itself."""

import os
import re

import schemathesis

SANDBOX = os.environ["WRENN_SANDBOX"]
NO_SANDBOX = "sb-01900000-0000-7000-8000-000000000000"


@schemathesis.serializer("application/x-tar")
def send_as_it_is(ctx, value):
    return value


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Has what would be refused for naming nothing that there is reach further; what breaks the rules goes out as it is."""
    given = case.path_parameters.get("id")
    if isinstance(given, str) and re.fullmatch(r"sb-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", given):
        # What comes after these would reach nothing any more.
        if case.operation.definition.raw["operationId"] not in ("destroySandbox", "pauseSandbox"):
            case.path_parameters["id"] = SANDBOX
        elif given == SANDBOX:
            case.path_parameters["id"] = NO_SANDBOX
    if isinstance(case.body, dict) and re.fullmatch(r"sb-[0-9a-f-]{36}", str(case.body.get("sandbox_id"))):
        case.body["sandbox_id"] = SANDBOX
    for fields in (case.query, case.body):
        if isinstance(fields, dict) and isinstance(fields.get("user"), str) and 1 <= len(fields["user"]) <= 64:
            fields["user"] = "root"


@schemathesis.check
def error_is_described(ctx, response, case):
    """A failure has a code that its operation names for its status, and is never one that nobody foresaw."""
    if response.status_code < 400:
        return
    code = response.json()["error"]["code"]
    assert code != "internal", "something went wrong inside Wrenn"
    if case.method.upper() != case.operation.method.upper():
        assert code == "method_not_allowed"
        return
    answers = case.operation.definition.raw["responses"]
    described = answers.get(str(response.status_code), {}).get("content", {}).get("application/json", {})
    assert code in described.get("examples", {}), f"{code} ({response.status_code}) is not described"
