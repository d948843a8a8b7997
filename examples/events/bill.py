"""Bills orders.

An event is delivered at least once, so this may be called twice with the same one. The number of
the invoice comes from the event's source and id, so both times it is the same invoice.
"""

import uuid


def handle(context, order):
    event = context["event"]
    # Events of CloudEvents 0.1 have other names for the same.
    identity = event["source"] + " " + (event.get("id") or event["eventID"])
    if order["total"] <= 0:
        # Trying again would not help. An InputError, so nobody does.
        raise ValueError("there is nothing to bill")
    invoice = str(uuid.uuid5(uuid.NAMESPACE_URL, identity))
    print("order", order["number"], "is billed as", invoice)
    # The subscription makes an event of this.
    return {"order": order["number"], "invoice": invoice}
