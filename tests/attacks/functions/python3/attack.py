"""Attacks from inside a Python function. Each returns what became of it: the name of an error, or a
text; `SUCCEEDED` where nothing stopped it. What each must return stands in the table."""

import ends
import frames
import kernel
import marks
import network
import processes
import proxy
import view
from tools import ATTACKS, try_to

FAMILIES = (ends, frames, kernel, marks, network, processes, proxy, view)
calls = 0


def handle(context, payload):
    global calls
    calls += 1
    frames.current = calls - 1
    if payload is None:
        return calls
    return try_to(ATTACKS[payload["attack"]], payload)
