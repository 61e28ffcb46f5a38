"""`ucjax doctor`: describes this installation, to be pasted into a bug report."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ucjax doctor`; those of a pod are as in `ucjax.main`."""
    parser.add_argument(
        "--multihost", action="store_true", help="join the other processes, map them, time a sum"
    )
    parser.add_argument("--coordinator", default="", metavar="HOST:PORT", help="of process 0")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="how many there are")
    parser.add_argument("--process_id", type=int, default=0, metavar="I", help="this one's number")
    parser.add_argument(
        "--distributed", action="store_true", help="let JAX find the others (TPU pods, Slurm)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the report, on a pod from process 0; 1 if something is broken.

    Raises:
      UserError: the other processes cannot be reached.
    """
    import logging

    from ucjax.planning import doctor
    from ucjax.runtime import parallel

    logging.getLogger("jax").setLevel(logging.ERROR)  # backends it looks for in vain
    if arguments.multihost:
        parallel.initialize(
            coordinator=arguments.coordinator,
            processes=arguments.processes,
            process_id=arguments.process_id,
            detect=arguments.distributed,
        )
    report = doctor.examine(multihost=arguments.multihost)
    if not arguments.multihost or parallel.is_main():
        print(doctor.text(report))
    return 1 if report.problems else 0
