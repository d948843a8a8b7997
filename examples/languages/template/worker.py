"""A worker for functions that are texts: the smallest that speaks the whole protocol."""

import glob
import json
import os
import socket
import string
import struct
import sys

supervisor = socket.socket(fileno=3)


def receive():
    """One frame: its header and its body; None when the supervisor has gone."""

    def exactly(count):
        data = b""
        while len(data) < count:
            piece = supervisor.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    try:
        header, body = struct.unpack(">II", exactly(8))
        return json.loads(exactly(header)), exactly(body)
    except EOFError:
        return None, b""


def send(header, body=b""):
    header = json.dumps(header).encode()
    supervisor.sendall(struct.pack(">II", len(header), len(body)) + header + body)


def fault(kind, error):
    text = {"type": kind, "message": str(error), "stacktrace": []}
    return json.dumps(text).encode()


def load(handler):
    names = [handler] if handler else glob.glob("*.txt")
    if len(names) != 1:
        raise ValueError(f"name one of the texts as the handler: {', '.join(sorted(names))}")
    with open(names[0], encoding="utf-8") as file:
        return names[0], string.Template(file.read())


def answer(template, context_length, body):
    payload = json.loads(body[context_length:]) or {}
    result = template.substitute(payload)
    # A result larger than a frame goes in pieces.
    result = json.dumps(result).encode()
    return [result[start : start + (1 << 20)] for start in range(0, len(result), 1 << 20)]


send({"type": "hello", "protocol": 1})
init, _ = receive()
if init is None:
    sys.exit()
os.chdir(init["source"])
try:
    name, template = load(init["handler"])
except (OSError, ValueError) as error:
    send({"type": "failed"}, fault("FunctionError", error))
    sys.exit()
send({"type": "ready", "handler": name})

call = None
while True:
    header, body = receive()
    if header is None:
        break
    kind = header["type"]
    if kind == "ping":
        send({"type": "pong"})
    if kind == "call":
        call = {"id": header["id"], "context": header["context_len"], "body": b""}
    if kind in ("call", "chunk", "end") and call:
        call["body"] += body
    if (kind == "call" and not header.get("more")) or kind == "end":
        try:
            pieces = answer(template, call["context"], call["body"])
        except (KeyError, ValueError) as error:
            send({"type": "error", "id": call["id"]}, fault("InputError", error))
            continue
        for number, piece in enumerate(pieces[:-1]):
            send({"type": "chunk" if number else "head", "id": call["id"]}, piece)
        send({"type": "end", "id": call["id"]}, pieces[-1])
