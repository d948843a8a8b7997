"""Says when an event was emitted and when the handler saw it, in nanoseconds of the clock."""

import time


def handle(context, payload):
    return {"emitted": payload.get("emitted", 0), "seen": time.time_ns()}
