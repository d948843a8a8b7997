"""The same answer after some work for the processor, beside which others are measured."""


def handle(context, payload):
    for _ in range(400_000):
        pass
    return {"myField": "Hello, %s from %s" % (payload["name"], payload["place"])}
