"""Peak memory of running processes, as the kernel counted it (Linux)."""

from __future__ import annotations

from pathlib import Path


def read_peaks(folder: Path) -> dict[str, int]:
    """Return the peak resident bytes of every process that names `folder` in its environment, the largest of a kind.

    Parameters
    ----------
    folder : Path
        The data folder of a service.
    """
    peaks: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours
            continue
        if str(folder).encode() not in environment + b" ".join(words):
            continue
        name = _name_process(words)
        peaks[name] = max(peaks.get(name, 0), read_peak(int(process.name)))
    return peaks


def read_peak(process: int) -> int:
    """Return the peak resident bytes of a process; 0 if it has ended.

    The kernel's account for a parent (``ru_maxrss``) will not do: it begins with what the parent had.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _name_process(words: list[bytes]) -> str:
    text = b" ".join(words).decode(errors="replace")
    for mark, name in (
        ("-Q files", "worker for files"),
        ("-Q rows", "worker for rows"),
        ("granian", "API"),
        ("broker", "broker"),
        ("redis", "Redis"),
        ("scorequeue up", "launcher"),
        (" up ", "launcher"),
        (" score ", "scorequeue score"),
    ):
        if mark in text:
            return name
    return Path(text.partition(" ")[0]).name
