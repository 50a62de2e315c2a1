"""From a port to processes that answer on it."""

import errno
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import uvicorn
from prometheus_client.multiprocess import mark_process_dead

from segapp.base.devices import available_cores
from segapp.base.errors import Stopped, UserError
from segapp.cli import guarded
from segapp.serving.app import make_app
from segapp.serving.config import ServeConfig
from segapp.serving.metrics import FOLDER
from segapp.serving.networks import Ways, open_network
from segapp.serving.protocol import bounded_protocol
from segapp.serving.service import Service

log = logging.getLogger(__name__)

GRACE = 5
"""Seconds beyond the deadline and the upload's time in which running requests may end after a signal."""


def serve(config: ServeConfig, ways: Ways, path: Path) -> int:
    """Answers with a checkpoint's file until a signal says to stop. Returns the exit status.

    Raises:
        UserError: the port is taken, or the checkpoint cannot be used.
        Stopped: at the end, after SIGTERM.
    """
    with listening(config.host, config.port) as listener:
        if config.workers == 1:
            _answer(config, ways, path, listener)
            return 0
        with tempfile.TemporaryDirectory(prefix="segapp-metrics-") as folder:
            os.environ[FOLDER] = folder
            return _supervise(config, ways, path, listener)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Raises:
    UserError: nobody can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"host={host}: no address of this machine ({reason}); take 127.0.0.1, or 0.0.0.0") from None
    with socket.socket(family, kind, protocol) as listener:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"port {port} of {host} is in use; take another, as in port={port % 65535 + 1}"
                ) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(f"host={host}: no address of this machine; take 127.0.0.1, or 0.0.0.0") from None
            raise UserError(
                f"port {port} of {host} cannot be listened at ({error.strerror}); take another, as in port=8000"
            ) from None
        yield listener


def address_of(listener: socket.socket) -> str:
    """For browsers on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answer(
    config: ServeConfig, ways: Ways, path: Path, listener: socket.socket, ready: Connection | None = None
) -> None:
    """One process: opens the network, and answers until a signal says to stop."""
    signal.signal(signal.SIGTERM, _stop)  # uvicorn raises the signal again, once all is answered
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it tells of every form that it cannot read
    if config.workers > 1:
        torch.set_num_threads(max(1, available_cores() // config.workers))
    network = open_network(config, ways, path)
    server = make_server(Service(network, config))
    log.info("%s: %s", path, network.info.describe())
    if ready is None:
        _say_ready(config, listener)
    else:
        ready.send(True)
    server.run([listener])


def make_server(service: Service) -> uvicorn.Server:
    config = service.config
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(service),
            http=bounded_protocol(config.upload),
            ws="none",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=round(config.deadline + config.upload) + GRACE,
        )
    )
    service.stopping = lambda: server.should_exit
    return server


def _say_ready(config: ServeConfig, listener: socket.socket) -> None:
    print(f"{config.checkpoint} answers at {address_of(listener)} (Ctrl-C ends it)", flush=True)


def _stop(number: int, frame: Any) -> None:
    raise Stopped(number)


def _worker(config: ServeConfig, ways: Ways, path: Path, listener: socket.socket, ready: Connection) -> None:
    """A process of its own, which ends with the one that started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to all processes; that one sends SIGTERM

    def run(_: list[str]) -> int:
        _answer(config, ways, path, listener, ready)
        return 0

    raise SystemExit(guarded(run, []))


def _supervise(config: ServeConfig, ways: Ways, path: Path, listener: socket.socket) -> int:
    """Starts the processes, the first one before the others, and starts anew those that die.

    Returns:
        The exit status of a process that does not come to answer.
    """
    context = multiprocessing.get_context("spawn")  # threads of libraries do not live through a fork
    running: dict[int, BaseProcess] = {}

    def start() -> bool:
        """Whether a new process has come to answer."""
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_worker, args=(config, ways, path, listener, theirs), daemon=True)
        process.start()
        theirs.close()
        running[process.sentinel] = process
        wait([ours])  # something, or its end
        return ours.poll() and _received(ours)

    def stop() -> None:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        while True:
            while len(running) < config.workers:
                if not start():
                    failed = running.popitem()[1]
                    failed.join()
                    return failed.exitcode or 1
                if len(running) == config.workers:
                    _say_ready(config, listener)
            for sentinel in wait(list(running)):
                dead = running.pop(sentinel)  # type: ignore[arg-type]
                dead.join()
                log.warning("a process has ended with status %s; another one is started", dead.exitcode)
                mark_process_dead(dead.pid)  # type: ignore[no-untyped-call]
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # they have it already
        listener.close()
        stop()


def _received(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv())
    except EOFError:
        return False
