"""Runs the calls of one Python function: see docs/reference/worker-protocol.md.

Only the standard library is used, and what few functions need is imported when it is needed: each
module costs every start.
"""

import os
import sys
from _socket import socket
from _struct import Struct
from time import monotonic

from __main__ import HERE, beside

try:
    # All that is needed of the module json, which brings regular expressions and more with it.
    from _json import encode_basestring as escape
    from _json import make_encoder, make_scanner
except ImportError:
    from json.decoder import JSONDecoder
    from json.encoder import JSONEncoder
    make_encoder = None

try:
    from fcntl import ioctl
except ImportError:
    ioctl = None

HELLO = b'{"type":"hello","protocol":1}'
PONG = b'{"type":"pong"}'
FAILED = b'{"type":"failed"}'
MAX_BODY = 1024 * 1024
MAX_TRACE = 200
MAX_MESSAGE = 16 * 1024
PREFIX = Struct(">II")
FIONREAD = 0x541B
NONE, COUNTS = bytes(4), (bytearray(4), bytearray(4))
# Where the process started with them, whatever a handler puts in their place.
OUT, ERR = sys.stdout, sys.stderr


class Plain:
    """How JSON is read."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {name: float(name) for name in ("NaN", "Infinity", "-Infinity")}.__getitem__


def refuse(value):
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


def new_writer():
    if make_encoder is None:
        return JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).iterencode
    # Circles are found; no indent; keys are neither sorted nor skipped, and NaN is refused.
    return make_encoder({}, refuse, escape, None, ":", ",", False, False, False)


scan = make_scanner(Plain) if make_encoder is not None else JSONDecoder().scan_once
write = new_writer()


def encode(value):
    """As `json.dumps` without blanks and escapes, but NaN is an error."""
    global write
    try:
        return "".join(write(value, 0))
    except BaseException:
        # It remembers what it was in, and would take that for a circle the next time.
        write = new_writer()
        raise


def decode(text):
    """As `json.loads`."""
    try:
        value, end = scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, SystemError):
        pass
    # There are blanks around it, or it is no JSON, and only that module can say why.
    import json

    return json.loads(text)


def to_bytes(value):
    return encode(value).encode("utf-8", "replace")


class Channel:
    """Frames over the inherited socket."""

    def __init__(self, fd):
        # Set where several threads may send at a time.
        self.lock = None
        # A forked copy of this process must not answer in its place.
        os.register_at_fork(after_in_child=self.close)
        self.open(fd)

    def open(self, fd):
        # Out of the handler's way, and not for processes that it starts.
        moved = os.dup2(fd, 200, inheritable=False)
        os.close(fd)
        self.socket = socket(fileno=moved)
        self.socket.setblocking(True)
        # Most calls fit; it grows with the first one that does not.
        self.buffer = bytearray(16 * 1024)
        self.view = memoryview(self.buffer)
        self.start = self.end = 0

    def close(self):
        self.socket.close()

    def put(self, data):
        """Adds bytes that were read elsewhere; `take` has made room for the frame they belong to."""
        if self.end + len(data) > len(self.buffer):
            rest = bytes(self.view[self.start : self.end])
            self.buffer = bytearray(len(rest) + len(data) + 64 * 1024)
            self.view = memoryview(self.buffer)
            self.view[: len(rest)] = rest
            self.start, self.end = 0, len(rest)
        self.view[self.end : self.end + len(data)] = data
        self.end += len(data)

    def send(self, head, body=b""):
        """Sends a frame; `head` is its header, already JSON."""
        frame = b"".join((PREFIX.pack(len(head), len(body)), head, body))
        if self.lock is None:
            self.socket.sendall(frame)
        else:
            with self.lock:
                self.socket.sendall(frame)

    def send_result(self, call, body, wrote=b""):
        if len(body) <= MAX_BODY:
            return self.send(b'{"type":"end","id":%d%s}' % (call, wrote), body)
        kind, view = b"head", memoryview(body)
        for at in range(0, len(body), MAX_BODY):
            if len(body) - at <= MAX_BODY:
                kind = b"end"
            more = wrote if kind == b"end" else b""
            self.send(b'{"type":"%s","id":%d%s}' % (kind, call, more), view[at : at + MAX_BODY])
            kind = b"chunk"

    def send_error(self, call, fault, wrote=b""):
        self.send(b'{"type":"error","id":%d%s}' % (call, wrote), to_bytes(fault))

    def fill(self, flags=0):
        """Reads what is there. False at the end of the stream."""
        count = self.socket.recv_into(self.view[self.end :], 0, flags)
        self.end += count
        return count > 0

    def take(self):
        """The next complete frame as (header, body), or None. Makes room for the rest of it."""
        have = self.end - self.start
        need = PREFIX.size
        if have >= need:
            head, body = PREFIX.unpack_from(self.buffer, self.start)
            need += head + body
            if have >= need:
                at = self.start + PREFIX.size
                header = decode(str(self.view[at : at + head], "utf-8"))
                content = bytes(self.view[at + head : at + head + body])
                self.start += need
                if self.start == self.end:
                    self.start = self.end = 0
                return header, content
        if self.start + need > len(self.buffer) or self.end == len(self.buffer):
            rest = self.view[self.start : self.end]
            self.buffer = bytearray(max(need, 64 * 1024))
            self.view = memoryview(self.buffer)
            self.view[: len(rest)] = rest
            self.start, self.end = 0, len(rest)
        return None

    def read(self):
        """The next frame, or None at the end of the stream."""
        while True:
            frame = self.take()
            if frame is not None:
                return frame
            if not self.fill():
                return None


class Calls:
    """Puts calls together that arrive in pieces."""

    def __init__(self):
        self.partial = {}

    def add(self, header, body):
        """A complete call as (id, context, payload, by), two of them JSON bytes, or None."""
        kind, call = header["type"], header["id"]
        if kind == "call":
            if not header.get("more"):
                return self.split(header, body)
            self.partial[call] = (header, [body])
        elif call in self.partial:
            head, pieces = self.partial[call]
            pieces.append(body)
            if kind == "end":
                del self.partial[call]
                return self.split(head, b"".join(pieces))
        return None

    @staticmethod
    def split(header, body):
        size = header["context_len"]
        return header["id"], body[:size], body[size:], header.get("by")


class LoadError(Exception):
    """The handler cannot be used; the text says why and what to do."""


class Refused(Exception):
    """A call fails with this type and message, without a stack trace."""

    def __init__(self, kind, message):
        self.fault = {"type": kind, "message": message, "stacktrace": []}


# Errors ----------------------------------------------------------------------------------------


def text_of(error):
    try:
        text = str(error)
    except Exception:
        text = ""
    return text[:MAX_MESSAGE] or type(error).__name__


def own_traceback(error):
    """The part of the traceback that is not the worker's own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(HERE):
        trace = trace.tb_next
    return trace


def stacktrace(error):
    import traceback

    try:
        parts = traceback.format_exception(type(error), error, own_traceback(error))
        lines = "".join(parts).rstrip("\n").split("\n")
    except Exception:
        return [type(error).__name__]
    lines = [line[:1000] for line in lines]
    if len(lines) > MAX_TRACE:
        lines = lines[: MAX_TRACE // 2] + ["  ..."] + lines[-MAX_TRACE // 2 :]
    return lines


def load_fault(error, source):
    """What to say about a handler that cannot be loaded: with the file and line where known."""
    if isinstance(error, LoadError):
        return {"message": str(error), "stacktrace": []}
    message = type(error).__name__ + ": " + text_of(error)
    if not isinstance(error, SyntaxError):
        place, trace = None, error.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name.startswith(source + "/"):
                place = "%s, line %d" % (name[len(source) + 1 :], trace.tb_lineno)
            trace = trace.tb_next
        if place:
            message += " (" + place + ")"
    return {"message": message, "stacktrace": stacktrace(error)}


def call_fault(error):
    if isinstance(error, Refused):
        return error.fault
    kind, message = "FunctionError", text_of(error)
    if isinstance(error, (ValueError, TypeError)):
        kind = "InputError"
    elif isinstance(error, SystemExit):
        message = "the handler called sys.exit(%s); return a value or raise an error" % message
    elif isinstance(error, KeyboardInterrupt):
        message = "the handler raised KeyboardInterrupt"
    elif isinstance(error, MemoryError):
        message = "MemoryError: the handler ran out of memory"
    return {"type": kind, "message": message, "stacktrace": stacktrace(error)}


# Calls -----------------------------------------------------------------------------------------


def parse(text, what):
    try:
        return decode(str(text, "utf-8"))
    except RecursionError:
        raise Refused("InputError", "the %s is nested too deeply" % what) from None
    except ValueError as error:
        raise Refused("InputError", "the %s is not JSON: %s" % (what, error)) from None


def render(result, limit):
    try:
        body = encode(result).encode()
    except UnicodeEncodeError:
        reason = "a string in it is not Unicode text"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        # Circular references, NaN and the infinities.
        reason = text_of(error)
    except TypeError as error:
        reason = text_of(error)
    else:
        if len(body) > limit:
            raise Refused(
                "FunctionError",
                "the result has %d bytes as JSON, but may have at most %d" % (len(body), limit),
            )
        return body
    raise Refused("FunctionError", "the result cannot be written as JSON: " + reason)


def flush():
    """Before a call is answered: the supervisor then takes what is in the pipes."""
    out, err = sys.stdout, sys.stderr
    try:
        out.flush()
        err.flush()
        if out is OUT and err is ERR:
            return
    except Exception:
        pass  # The handler closed or replaced one.
    for stream in (err, OUT, ERR):
        try:
            stream.flush()
        except Exception:
            pass


def unread(ioctl=ioctl):
    """Whether something may be in the pipes that the supervisor has not read."""
    try:
        for fd, count in zip((1, 2), COUNTS):
            ioctl(fd, FIONREAD, count)
            if count != NONE:
                return True
    except Exception:
        return True
    return False


def serve(channel, function, limit, clock=monotonic):
    """One call at a time, without an event loop unless the handler returns an awaitable."""
    calls = Calls()
    # Whether the call before left something in the pipes.
    dirty = False
    while True:
        frame = channel.read()
        if frame is None:
            return
        header, body = frame
        if header["type"] == "ping":
            channel.send(PONG)
        if header["type"] not in ("call", "chunk", "end"):
            continue
        complete = calls.add(header, body)
        if complete is None:
            continue
        call, context, payload, by = complete
        if by and (dirty or clock() * 1e6 >= by):
            # It was sent while another one ran. Now nobody could tell whose output is whose, or it may
            # have been given to another worker.
            channel.send(b'{"type":"declined","id":%d}' % call)
            continue
        try:
            result = function(parse(context, "context"), parse(payload, "payload"))
            if hasattr(result, "__await__"):
                result = await_here(result)
            body, fault = render(result, limit), None
        except BaseException as error:
            fault = call_fault(error)
        result = complete = context = payload = None
        flush()
        dirty = by is not None and unread()
        wrote = b',"wrote":true' if dirty else b""
        if fault is None:
            channel.send_result(call, body, wrote)
        else:
            channel.send_error(call, fault, wrote)


def await_here(awaitable):
    """Waits for what a plain function returned, always in the same event loop."""
    import asyncio

    global loop
    if loop is None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)

    async def wait():
        return await awaitable

    return loop.run_until_complete(wait())


loop = None


WARM = "def handle(context, payload):\n    return {'a': [context, f'{payload}']}\n"


def main():
    channel = Channel(3)
    for stream in (sys.stdout, sys.stderr):
        # By line, so that little is lost when the process is killed.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    # Before the greeting: what comes after it a caller may wait for.
    handler = beside("handler")
    channel.send(HELLO)
    # The compiler, which has not run yet, is what the source needs first.
    compile(WARM, "", "exec")
    frame = channel.read()
    if frame is None:
        return
    init, environment = frame
    concurrency, limit = init["concurrency"], init["result_limit"]
    overlap = logs = None
    try:
        os.environ.update(decode(str(environment, "utf-8")))
        # The source may have come to this place only now.
        os.chdir(init["source"])
        if concurrency > 1:
            overlap = beside("overlap")
            # Before the source is loaded: it may keep sys.stderr, as the module logging does.
            logs = overlap.CallLogs(channel)
        name, function = handler.load(init["source"], init["handler"])
        threaded = not handler.is_async(function)
        if not threaded and overlap is None:
            overlap = beside("overlap")
    except BaseException as error:
        flush()
        return channel.send(FAILED, to_bytes(load_fault(error, init["source"])))
    flush()
    zygote = reason = None
    if init.get("fork"):
        zygote = beside("zygote")
        reason = zygote.reason_not_to_fork(channel)
    if zygote is None or reason is not None:
        ahead = overlap is None and ioctl is not None
        ready = {"type": "ready", "handler": name, "not_forking": reason, "ahead": ahead}
        channel.send(to_bytes(ready))
    else:
        channel.send(to_bytes({"type": "ready", "handler": name, "forks": True}))
        if zygote.serve(channel) is None:
            return
        channel.send(HELLO)
    if overlap is None:
        serve(channel, function, limit)
    else:
        threads = concurrency if threaded else 0
        overlap.serve(channel, function, limit, threads, logs)
