"""Writes one line to each stream."""

import sys


def handle(ctx, payload):
    print("this goes to stdout")
    print("this goes to stderr", file=sys.stderr)
