"""``python -m tests.chaos --seconds 60 --seed 7``: exits 1 if anything was lost, doubled, stuck or wrong."""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.driver import run_chaos


def main() -> int:
    """Run it, print the report, and keep the folder if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=None, help="of clients and nemesis; by default by chance")
    parser.add_argument("--report", type=Path, help="file for the report, beside standard output")
    parser.add_argument("--keep", action="store_true", help="keep data, logs and history even if all is well")
    options = parser.parse_args()
    # Ended by a signal it still stops the service.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="scorequeue-chaos-"))
    sys.stdout.write(f"chaos: seed {seed}, {options.seconds:g} s, everything in {folder}\n")
    sys.stdout.flush()

    report = run_chaos(folder, options.seconds, seed)

    sys.stdout.write(f"{report}\n")
    if options.report:
        options.report.write_text(f"{report}\n")
    if report.violations or options.keep:
        sys.stdout.write(f"chaos: kept {folder}: history.ndjson, up.err, data/logs\n")
    else:
        shutil.rmtree(folder)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
