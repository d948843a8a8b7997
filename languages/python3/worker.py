"""Runs the calls of one Python function: see docs/reference/worker-protocol.md.

Only the standard library is used, and what few functions need is imported when it is needed.
"""

import json
import os
import sys
from _socket import MSG_DONTWAIT, socket
from struct import Struct

PROTOCOL = 1
MAX_BODY = 1024 * 1024
MAX_TRACE = 200
MAX_MESSAGE = 16 * 1024
LAYER = "/layer"
PREFIX = Struct(">II")

encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
decode = json.JSONDecoder().decode


class Channel:
    """Frames over the inherited socket."""

    def __init__(self, fd):
        # Out of the handler's way, and not for processes that it starts.
        moved = os.dup2(fd, 200, inheritable=False)
        os.close(fd)
        self.socket = socket(fileno=moved)
        self.socket.setblocking(True)
        self.buffer = bytearray(64 * 1024)
        self.view = memoryview(self.buffer)
        self.start = self.end = 0
        # Set where several threads may send at a time.
        self.lock = None

    def send(self, header, body=b""):
        head = encode(header).encode()
        frame = b"".join((PREFIX.pack(len(head), len(body)), head, body))
        if self.lock is None:
            self.socket.sendall(frame)
        else:
            with self.lock:
                self.socket.sendall(frame)

    def send_result(self, call, body):
        if len(body) <= MAX_BODY:
            return self.send({"type": "end", "id": call}, body)
        kind, view = "head", memoryview(body)
        for at in range(0, len(body), MAX_BODY):
            if len(body) - at <= MAX_BODY:
                kind = "end"
            self.send({"type": kind, "id": call}, view[at : at + MAX_BODY])
            kind = "chunk"

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
        """A complete call as (id, context, payload), both JSON bytes, or None."""
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
        return header["id"], body[:size], body[size:]


class LoadError(Exception):
    """The handler cannot be used; the text says why and what to do."""


class Refused(Exception):
    """A call fails with this type and message, without a stack trace."""

    def __init__(self, kind, message):
        self.fault = {"type": kind, "message": message, "stacktrace": []}


# Loading ---------------------------------------------------------------------------------------


def load(source, handler):
    """Imports the handler. Returns its full name and the function."""
    sys.path.insert(0, source)
    if os.path.isdir(LAYER):
        import site

        site.addsitedir(LAYER)
    module_name, function_name = resolve(source, handler)
    name = handler or module_name + "." + function_name
    module = import_module(source, module_name, name)
    function = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if function is None:
        raise LoadError(
            'handler "%s": module %s has no function %s%s'
            % (name, module_name, function_name, suggest(module))
        )
    if not callable(function):
        raise LoadError(
            'handler "%s": %s is a %s and not a function'
            % (name, function_name, type(function).__name__)
        )
    if not takes_two(function):
        raise LoadError(
            'handler "%s": the function must take two positional arguments, context and payload'
            % name
        )
    return module_name + "." + function_name, function


def resolve(source, handler):
    """The module and the function that a handler means."""
    files = sorted(name for name in os.listdir(source) if name.endswith(".py"))
    if not handler:
        if len(files) != 1:
            raise LoadError(
                "Exactly 1 source file needed when HANDLER is empty, but there are %d%s; name the "
                "handler, such as hello.handle"
                % (len(files), (": " + ", ".join(files[:10])) if files else "")
            )
        return files[0][:-3], "handle"
    path, _, function = handler.partition("::")
    if path.startswith("./"):
        path = path[2:]
    if path.endswith(".py"):
        module = path[:-3].replace("/", ".")
    elif function or "." not in path:
        module = path.replace("/", ".")
    else:
        module, _, function = path.replace("/", ".").rpartition(".")
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise LoadError(
            'handler "%s" is not the name of a function; write module.function, such as '
            "hello.handle" % handler
        )
    return module, function or "handle"


def import_module(source, name, handler):
    from importlib import import_module as load_module

    top = name.partition(".")[0]
    if top in sys.modules and exists(source, top):
        # A source may be called like a module that this worker has imported already.
        del sys.modules[top]
    try:
        return load_module(name)
    except ModuleNotFoundError as error:
        if error.name == name or name.startswith(str(error.name) + "."):
            raise LoadError(
                'handler "%s": there is no module %s in the source' % (handler, name)
            ) from None
        raise


def exists(source, name):
    path = os.path.join(source, name)
    return os.path.exists(path + ".py") or os.path.isdir(path)


def suggest(module):
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    return "; it has " + ", ".join(names[:10]) if names else ""


def takes_two(function):
    code = getattr(function, "__code__", None)
    if type(function).__name__ == "function" and not hasattr(function, "__wrapped__"):
        required = code.co_argcount - len(function.__defaults__ or ())
        most = sys.maxsize if code.co_flags & 0x04 else code.co_argcount
        keywords = len(function.__kwdefaults__ or ()) == code.co_kwonlyargcount
        return required <= 2 <= most and keywords
    import inspect

    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        pass  # Some built-in ones have no signature.
    return True


def is_async(function):
    code = getattr(function, "__code__", None) or getattr(
        getattr(function, "__call__", None), "__code__", None
    )
    return code is not None and bool(code.co_flags & 0x80)


# Errors ----------------------------------------------------------------------------------------


def text_of(error):
    try:
        text = str(error)
    except Exception:
        text = ""
    return text[:MAX_MESSAGE] or type(error).__name__


def own_traceback(error):
    """The part of the traceback that is not this file's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
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
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass  # The handler closed or replaced it.


def serve(channel, function, limit):
    """One call at a time, without an event loop unless the handler returns an awaitable."""
    calls = Calls()
    while True:
        frame = channel.read()
        if frame is None:
            return
        header, body = frame
        if header["type"] == "ping":
            channel.send({"type": "pong"})
        if header["type"] not in ("call", "chunk", "end"):
            continue
        complete = calls.add(header, body)
        if complete is None:
            continue
        call, context, payload = complete
        try:
            result = function(parse(context, "context"), parse(payload, "payload"))
            if hasattr(result, "__await__"):
                result = await_here(result)
            body, fault = render(result, limit), None
        except BaseException as error:
            fault = call_fault(error)
        result = complete = context = payload = None
        flush()
        if fault is None:
            channel.send_result(call, body)
        else:
            channel.send({"type": "error", "id": call}, encode_fault(fault))


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


def encode_fault(fault):
    return encode(fault).encode("utf-8", "replace")


# Overlapping calls -----------------------------------------------------------------------------


def serve_async(channel, function, limit, concurrency):
    """An event loop: coroutines run in it, plain functions in threads beside it."""
    import asyncio
    import contextvars
    import threading
    from concurrent.futures import ThreadPoolExecutor

    channel.lock = threading.Lock()
    threads = None if is_async(function) else ThreadPoolExecutor(concurrency)
    calls, tasks = Calls(), {}
    logs = CallLogs(channel) if concurrency > 1 else None

    async def run(call, context, payload):
        if logs is not None:
            logs.begin(call)
        try:
            arguments = parse(context, "context"), parse(payload, "payload")
            if threads is None:
                result = function(*arguments)
            else:
                inside = contextvars.copy_context().run
                thread = running.run_in_executor(threads, inside, attempt, function, arguments)
                result, error = await thread
                if error is not None:
                    raise error
            if hasattr(result, "__await__"):
                result = await result
            body, fault = render(result, limit), None
        except asyncio.CancelledError:
            fault = {"message": "the call was cancelled"}
        except BaseException as error:
            fault = call_fault(error)
        finally:
            tasks.pop(call, None)
        if logs is None:
            flush()
        else:
            logs.finish(call)
        if fault is None:
            channel.send_result(call, body)
        else:
            channel.send({"type": "error", "id": call}, encode_fault(fault))

    def on_frame(header, body):
        kind = header["type"]
        if kind == "ping":
            channel.send({"type": "pong"})
        elif kind == "cancel":
            # A thread cannot be stopped, so its call goes on until the worker is killed.
            if header["id"] in tasks and threads is None:
                tasks[header["id"]].cancel()
        elif kind in ("call", "chunk", "end"):
            complete = calls.add(header, body)
            if complete is not None:
                tasks[complete[0]] = running.create_task(run(*complete))

    def on_readable():
        try:
            open_still = channel.fill(MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not open_still:
            return running.stop()
        frame = channel.take()
        while frame is not None:
            on_frame(*frame)
            frame = channel.take()

    running = asyncio.new_event_loop()
    asyncio.set_event_loop(running)
    running.add_reader(channel.socket.fileno(), on_readable)
    running.run_forever()


def attempt(function, arguments):
    """Calls in a thread. Not every exception can cross into an event loop by itself."""
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


class CallLogs:
    """Sends what is written to sys.stdout and sys.stderr to the call that wrote it."""

    def __init__(self, channel):
        import contextvars
        import io
        import threading

        self.channel = channel
        self.lock = threading.RLock()
        self.running = set()
        self.current = contextvars.ContextVar("call", default=None)
        self.partial = {}
        logs = self

        class CallOutput(io.RawIOBase):
            def __init__(self, stream, fd):
                self.stream, self.fd = stream, fd

            def writable(self):
                return True

            def fileno(self):
                return self.fd

            def write(self, data):
                logs.write(self.stream, self.fd, bytes(data))
                return len(data)

        def wrap(stream, fd):
            raw = CallOutput(stream, fd)
            return io.TextIOWrapper(raw, "utf-8", "backslashreplace", "\n", write_through=True)

        sys.stdout, sys.stderr = wrap("stdout", 1), wrap("stderr", 2)

    def begin(self, call):
        self.current.set(call)
        self.running.add(call)

    def write(self, stream, fd, data):
        call = self.current.get()
        with self.lock:
            if call in self.running:
                # Whole lines are sent at once: a print is one frame, not one for each argument.
                pieces = self.partial.setdefault((call, stream), [])
                pieces.append(data)
                if b"\n" in data or sum(map(len, pieces)) > 8192:
                    self.send(call, stream)
                return
        while data:
            data = data[os.write(fd, data) :]

    def send(self, call, stream):
        data = b"".join(self.partial.pop((call, stream), ()))
        for at in range(0, len(data), MAX_BODY):
            piece = data[at : at + MAX_BODY]
            self.channel.send({"type": "log", "id": call, "stream": stream}, piece)

    def finish(self, call):
        """What a call's leftovers write from now on is not the call's any more."""
        with self.lock:
            self.send(call, "stdout")
            self.send(call, "stderr")
            self.running.discard(call)


def main():
    channel = Channel(3)
    for stream in (sys.stdout, sys.stderr):
        # By line, so that little is lost when the process is killed.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    channel.send({"type": "hello", "protocol": PROTOCOL})
    frame = channel.read()
    if frame is None:
        return
    init = frame[0]
    try:
        name, function = load(init["source"], init["handler"])
    except BaseException as error:
        flush()
        return channel.send({"type": "failed"}, encode_fault(load_fault(error, init["source"])))
    flush()
    concurrency, limit = init["concurrency"], init["result_limit"]
    channel.send({"type": "ready", "handler": name})
    if concurrency > 1 or is_async(function):
        serve_async(channel, function, limit, concurrency)
    else:
        serve(channel, function, limit)


if __name__ == "__main__":
    main()
