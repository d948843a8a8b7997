"""Greets whoever is named in the payload."""


def handle(ctx, payload):
    payload = payload or {}
    name = payload.get("name", "Noone")
    place = payload.get("place", "Nowhere")
    print("messages to stdout show up in logs")
    return {"myField": f"Hello, {name} from {place}"}
