"""`bntools` command lines as processes of their own, without the seconds that importing the libraries takes.

As a script: a process that has imported them, and forks whenever a command line arrives on its socket.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

LIBRARIES = (
    "bntools.cli", "torch", "torch._dynamo", "transformers", "safetensors.torch", "numba", "scipy.optimize",
    "scipy.special", "rich.progress", "transformers.models.llama.modeling_llama",
)  # fmt: skip
SECONDS = 600


class Server:
    """The process that forks; one command line at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            self._process = subprocess.Popen([sys.executable, __file__, str(fd)], pass_fds=[fd])
        self._socket.settimeout(SECONDS)

    def run(
        self, words: list[str], data: bytes | None, environment: dict[str, str]
    ) -> tuple[int, bytes, bytes]:
        """(status as subprocess gives it, standard output, standard error); without data, no input is connected."""
        pipes = [os.pipe() for _ in range(3)]
        (theirs, source), (out, _), (error, _) = pipes
        if data is None:
            os.close(theirs)
            theirs = os.open(os.devnull, os.O_RDONLY)
        body = json.dumps([words, os.getcwd(), environment]).encode()
        given = [theirs, pipes[1][1], pipes[2][1]]
        socket.send_fds(self._socket, [struct.pack("i", len(body)) + body], given)
        for fd in given:
            os.close(fd)
        with ThreadPoolExecutor(3) as pool:
            feeding = pool.submit(_feed, source, data or b"")
            outputs = [pool.submit(_read, fd) for fd in (out, error)]
            (status,) = struct.unpack("i", self._socket.recv(4))
            feeding.result()
            return os.waitstatus_to_exitcode(status), outputs[0].result(), outputs[1].result()

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=60)


def _feed(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "wb") as pipe:
        pipe.write(data)


def _read(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read()


def serve(requests: socket.socket) -> None:
    """Fork for every request, wait, and answer with the status, until nobody asks any more."""
    for name in LIBRARIES:
        importlib.import_module(name)
    while True:
        head, fds, _, _ = socket.recv_fds(requests, 4, 3)
        if not head:
            return
        (size,) = struct.unpack("i", head)
        body = b""
        while len(body) < size:
            body += requests.recv(size - len(body))
        child = os.fork()
        if not child:
            requests.close()
            _become(fds, *json.loads(body))
        for fd in fds:
            os.close(fd)
        requests.sendall(struct.pack("i", os.waitpid(child, 0)[1]))


def _become(fds: list[int], words: list[str], folder: str, environment: dict[str, str]) -> None:
    """This process as if it had been started with a command line; does not return."""
    from bntools.cli import main

    for target, fd in enumerate(fds):
        os.dup2(fd, target)
        os.close(fd)
    signal.alarm(SECONDS)  # whoever waits for it has given up by then
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv[1:] = words
    status = 1
    try:
        main()
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else int(done.code is not None)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        _leave(status)


def _leave(status: int) -> None:
    """Out, with what the end of a process does: exit handlers, coverage's file among them."""
    import atexit

    atexit._run_exitfuncs()
    os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
