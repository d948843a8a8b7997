#!/usr/bin/env python3
"""Counts its calls: any program that answers lines with lines is a function."""

import json
import sys

count = 0
for line in sys.stdin:
    call = json.loads(line)
    count += 1
    print("call", count, file=sys.stderr)
    print(json.dumps({"count": count, "payload": call["payload"]}), flush=True)
