"""A pod on a laptop: runs a command as several processes with several CPU devices each.

    python launch/local_pod.py --processes 2 --devices 2 -- \
        python -m ucjax.main --config=configs/quickstart.py --workdir=out/pod

Every process gets --coordinator, --processes and --process_id appended; lines are prefixed by the
process. If one process fails, all are stopped and its exit code is returned.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO


def main() -> int:
    """Parses the command line and runs the pod."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=2, help="CPU devices of each process")
    parser.add_argument("command", nargs="+", help="after --")
    arguments = parser.parse_args()
    return run_pod(arguments.command, arguments.processes, arguments.devices)


def run_pod(command: list[str], processes: int, devices: int) -> int:
    """Runs `command` as `processes` processes; returns the first exit code that is not 0."""
    address = f"127.0.0.1:{_free_port()}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    pod = [
        subprocess.Popen(
            [
                *command,
                f"--coordinator={address}",
                f"--processes={processes}",
                f"--process_id={index}",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for index in range(processes)
    ]
    printers = [
        threading.Thread(target=_print_lines, args=(i, p.stdout)) for i, p in enumerate(pod)
    ]
    for printer in printers:
        printer.start()
    try:
        code = _wait(pod)
    finally:
        _stop(pod)
    for printer in printers:
        printer.join()
    return code


def _wait(pod: list[subprocess.Popen[str]]) -> int:
    while True:
        codes = [process.poll() for process in pod]
        for index, code in enumerate(codes):
            if code:
                print(f"process {index} failed with exit code {code}: stopping all", flush=True)
                return code
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.1)


def _stop(pod: list[subprocess.Popen[str]]) -> None:
    for process in pod:
        if process.poll() is None:
            # The command may have children of its own: end the whole session.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _print_lines(index: int, stream: IO[str] | None) -> None:
    assert stream is not None
    for line in stream:
        print(f"[{index}] {line}", end="", flush=True)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
