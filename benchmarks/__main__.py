"""``python -m benchmarks [NAME]``: measure, and print a short table; ``make bench`` runs all."""

from __future__ import annotations

import argparse
import os
import platform
import sys

from benchmarks import durability, files, http, inference, killed, quality, recovery, rows, swap


def main() -> int:
    """Run what was asked for; the exit code is 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "which",
        nargs="?",
        choices=(
            "rows",
            "files",
            "large",
            "killed",
            "inference",
            "quality",
            "durability",
            "http",
            "recovery",
            "swap",
            "all",
        ),
        default="all",
    )
    parser.add_argument("--jobs", type=int, default=20_000, metavar="N", help="one-row jobs to the service")
    parser.add_argument(
        "--plain-jobs", type=int, default=2_000, metavar="N", help="one-row jobs to plain Flask and Celery"
    )
    parser.add_argument("--rounds", type=int, default=300, metavar="N", help="single requests to an idle service")
    parser.add_argument("--rows", type=int, default=500_000, metavar="N", help="rows of the CSV")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each side of a CSV")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="client processes")
    parser.add_argument("--connections", type=int, default=32, metavar="N", help="connections of each of them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="worker processes")
    options = parser.parse_args()

    print(f"{os.cpu_count()} processors, Python {platform.python_version()}, {platform.system()} {platform.machine()};")
    print("clients, servers and workers share them; one side after the other, each alone on the machine.\n", flush=True)
    wrong = 0
    if options.which in ("rows", "all"):
        wrong += rows.run(options)
    if options.which in ("files", "all"):
        wrong += files.run(options)
    if options.which == "killed":
        wrong += killed.run(options)
    if options.which == "large":
        wrong += files.run_large(options)
    if options.which in ("inference", "all"):
        wrong += inference.run(options)
    if options.which in ("quality", "all"):
        wrong += quality.run(options)
    if options.which in ("durability", "all"):
        wrong += durability.run(options)
    if options.which == "http":
        wrong += http.run(options)
    if options.which in ("recovery", "all"):
        wrong += recovery.run(options)
    if options.which in ("swap", "all"):
        wrong += swap.run(options)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
