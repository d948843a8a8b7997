"""The work that is measured, done slowly, so that calls at the same time need workers of their own."""

import time


def handle(context, payload):
    time.sleep(1)
    return {"myField": "Hello, " + payload["name"] + " from " + payload["place"]}
