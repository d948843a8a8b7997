"""Fetches a page: needs an image with `requests` and a function with `egress: full`."""

import requests


def handle(ctx, payload):
    answer = requests.get("http://example.com", timeout=10)
    return {
        "status": answer.status_code,
        "headers": dict(answer.headers),
        "content": answer.text,
    }
