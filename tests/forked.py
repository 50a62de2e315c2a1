"""Processes at the cost of a fork: the server that forks them has imported what the tools need, once for all."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from segapp.cli import run_tool


def process(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Not yet started. `work` is a function of a module, and runs on one thread."""
    context = multiprocessing.get_context("forkserver")  # a kill must not hurt this process
    context.set_forkserver_preload([__name__, "tests.training.test_training"])
    return context.Process(target=_on_one_thread, args=(work, *arguments))


def _on_one_thread(work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    work(*arguments)


def tool_process(tool: str, *arguments: str, told: Path, **variables: object) -> BaseProcess:
    """A tool's, with these environment variables; what it prints is added to the file `told`."""
    return process(_run, tool, arguments, told, {name: str(value) for name, value in variables.items()})


def _run(tool: str, arguments: tuple[str, ...], told: Path, variables: dict[str, str]) -> None:
    os.environ |= variables
    with told.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(run_tool(tool, arguments))


def run_job(processes: int, tool: str, *arguments: str, told: Path, expected: int = 0) -> str:
    """Runs a tool in so many processes, with the variables that torchrun sets. Returns what they print, in `told`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_all = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    members = [
        tool_process(tool, *arguments, told=told, RANK=rank, LOCAL_RANK=rank, **of_all) for rank in range(processes)
    ]
    for each in members:
        each.start()
    for each in members:
        each.join(300)
        each.kill()  # one that waits for another in vain
        each.join()
    shown = told.read_text()
    codes = [each.exitcode or 0 for each in members]
    assert (min(codes), max(codes)) in {(0, expected), (expected, expected)}, shown
    return shown
