"""Handlers that were written for other systems: docs/guide/import.md."""

import os
import sys

from _dispatch_calls import LoadError, Refused, encode

KINDS = "lambda", "http", "cloudevent"


def split(handler):
    """The kind and the name of a handler such as `lambda:app.handler`; without a kind, None."""
    kind, colon, name = handler.partition(":")
    if not colon or name.startswith(":"):
        return None, handler
    if kind not in KINDS:
        raise LoadError(
            'handler "%s": "%s:" means nothing here; write lambda:, http: or cloudevent: before '
            "the name of a handler that was written for such a system, and nothing before others"
            % (handler, kind)
        )
    return kind, name


def wrap(kind, function):
    """A handler of ours that calls one of theirs."""
    return {"lambda": from_lambda, "http": from_http, "cloudevent": from_event}[kind](function)


# AWS Lambda ------------------------------------------------------------------------------------


class LambdaContext:
    def __init__(self, context):
        from time import time

        self.function_name = context.get("function")
        self.function_version = context.get("revision") or "$LATEST"
        self.invoked_function_arn = "dispatch:%s:%s" % (
            context.get("organization"),
            self.function_name,
        )
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0")
        self.aws_request_id = context.get("runId")
        self.log_group_name = self.function_name
        self.log_stream_name = self.aws_request_id
        self.identity = self.client_context = None
        # What the old `deadline` says, without reading it as a time.
        timeout = context.get("timeout")
        self._end = None if timeout is None else time() * 1000 + timeout

    def get_remaining_time_in_millis(self):
        from time import time

        if self._end is None:
            return sys.maxsize
        return max(0, int(self._end - time() * 1000))


def lambda_event(context, payload):
    """The payload, or the request of an endpoint as a function URL has it (version 2.0)."""
    request, http = context.get("request"), context.get("httpContext") or {}
    if not request:
        return payload
    from time import gmtime, strftime, time

    path, _, query = request["uri"].partition("?")
    headers = {name.lower(): ",".join(values) for name, values in request["header"].items()}
    cookies = headers.pop("cookie", "")
    now = time()
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": context.get("function"),
            "domainName": headers.get("host", ""),
            "http": {
                "method": request["method"],
                "path": path,
                "protocol": http.get("server_protocol", "HTTP/1.1"),
                "sourceIp": http.get("remote_addr", ""),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": context.get("runId"),
            "routeKey": "$default",
            "stage": "$default",
            "time": strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies.split("; ")
    if query:
        from urllib.parse import parse_qs

        pairs = parse_qs(query, keep_blank_values=True).items()
        event["queryStringParameters"] = {name: ",".join(values) for name, values in pairs}
    if http.get("params"):
        event["pathParameters"] = http["params"]
    if has_body(request, payload):
        event["body"] = encode(payload)
    return event


def has_body(request, payload):
    # The payload of others is their query.
    return request["method"] not in ("GET", "HEAD", "OPTIONS") and payload is not None


def from_lambda(function):
    return lambda context, payload: function(lambda_event(context, payload), LambdaContext(context))


# functions-framework ---------------------------------------------------------------------------


def from_http(function):
    try:
        import flask
    except ModuleNotFoundError:
        raise LoadError(
            "a handler http: takes a request of flask: add flask, or functions-framework, to the "
            "packages of the image"
        ) from None
    app = flask.Flask("function")

    def handle(context, payload):
        request = context.get("request") or {"uri": "/", "method": "POST", "header": {}}
        came = "request" in context
        headers = [
            (name, value)
            for name, values in request["header"].items()
            for value in values
            if name.lower() not in ("content-length", "content-type", "transfer-encoding")
        ]
        data, kind = None, None
        if has_body(request, payload):
            data, kind = encode(payload), "application/json"
        place = app.test_request_context(
            request["uri"], method=request["method"], headers=headers, data=data, content_type=kind
        )
        with place:
            response = app.make_response(function(flask.request))
        return from_response(response, came)

    return handle


def from_response(response, came):
    body = response.get_data()
    if came:
        headers = {}
        for name, value in response.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                headers.setdefault(name, []).append(value)
        from base64 import b64encode

        return {
            "statusCode": response.status_code,
            "multiValueHeaders": headers,
            "body": b64encode(body).decode(),
            "isBase64Encoded": True,
        }
    if response.status_code >= 400:
        kind = "InputError" if response.status_code < 500 else "FunctionError"
        raise Refused(kind, "%s: %s" % (response.status, body.decode("utf-8", "replace").strip()))
    if response.is_json:
        return response.get_json()
    return body.decode("utf-8", "replace") or None


class CloudEvent:
    """An event, where the package cloudevents is not there."""

    def __init__(self, attributes, data):
        self._attributes, self.data = attributes, data

    def __getitem__(self, name):
        return self._attributes[name]

    def get(self, name, default=None):
        return self._attributes.get(name, default)

    def get_attributes(self):
        return dict(self._attributes)

    def get_data(self):
        return self.data


def from_event(function):
    try:
        from cloudevents.http import CloudEvent as Event
    except ModuleNotFoundError:
        Event = CloudEvent

    def handle(context, payload):
        attributes = context.get("event")
        if attributes is None:
            # Who calls it by hand sends the event as a whole.
            if not isinstance(payload, dict) or "type" not in payload:
                raise Refused(
                    "InputError", "the call is no event: it has neither a context of one nor a type"
                )
            attributes = {name: value for name, value in payload.items() if name != "data"}
            payload = payload.get("data")
        return function(Event(attributes, payload))

    return handle
