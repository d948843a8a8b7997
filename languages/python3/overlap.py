"""Runs several calls at a time, or coroutines."""

import asyncio
import contextvars
import io
import os
import sys
import threading
from _socket import MSG_DONTWAIT
from concurrent.futures import ThreadPoolExecutor

from _dispatch_calls import MAX_BODY, PONG, Calls, call_fault, flush, parse, render


def serve(channel, function, limit, threads, logs):
    """Runs an event loop: coroutines run in it, plain functions in threads beside it."""
    channel.lock = threading.Lock()
    threads = ThreadPoolExecutor(threads) if threads else None
    calls, tasks = Calls(), {}

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
            channel.send_error(call, fault)

    def on_frame(header, body):
        kind = header["type"]
        if kind == "ping":
            channel.send(PONG)
        elif kind == "cancel":
            # A thread cannot be stopped, so its call goes on until the worker is killed.
            if header["id"] in tasks and threads is None:
                tasks[header["id"]].cancel()
        elif kind in ("call", "chunk", "end"):
            complete = calls.add(header, body)
            if complete is not None:
                call, context, payload, _ = complete
                tasks[call] = running.create_task(run(call, context, payload))

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
            head = b'{"type":"log","id":%d,"stream":"%s"}' % (call, stream.encode())
            self.channel.send(head, data[at : at + MAX_BODY])

    def finish(self, call):
        """What a call's leftovers write from now on is not the call's any more."""
        with self.lock:
            self.send(call, "stdout")
            self.send(call, "stderr")
            self.running.discard(call)
