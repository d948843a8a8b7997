"""The work that is measured, for Dispatch and for the raw server."""


def handle(context, payload):
    return {"myField": "Hello, " + payload["name"] + " from " + payload["place"]}
