"""How long the command and the import take, whole process from a fresh start, and what memory they peak at.

    python benchmarks/startup.py MODULE PHOTO [--rounds 7]

Best and median of the rounds. `import tensorflow_hub` stands beside it where that is installed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time


def once(command: list[str], environment: dict[str, str]) -> tuple[float, float] | None:
    """Seconds and MB of one process; None where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return None if process.returncode else (time.perf_counter() - start, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("photo")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--alone", action="store_true", help="without tensorflow_hub and tensorflow beside it")
    args = parser.parse_args()
    mobilenet = [sys.executable, "-m", "mobilenet_hub.cli.main"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import mobilenet_hub": [sys.executable, "-c", "import mobilenet_hub"],
        "mobilenet --help": [*mobilenet, "--help"],
        "mobilenet classify photo": [*mobilenet, "classify", args.photo, "--module", args.module],
    }
    for peer in () if args.alone else ("tensorflow_hub", "tensorflow"):
        commands[f"import {peer}"] = [sys.executable, "-c", f"import {peer}"]
    print("| process | best s | median s | peak MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "MOBILENET_HUB_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip writes it; without it each start compiles all again
        for name, command in commands.items():
            first = once(command, environment)  # fills the caches: disk, bytecode, compiled model
            if first is None:
                print(f"| {name} | not here | | |")
                continue
            if "classify" in name:
                print(f"| {name}, first start | {first[0]:.2f} | | {first[1]:.0f} |")
            runs = [run for _ in range(args.rounds) if (run := once(command, environment))]
            seconds, peaks = zip(*runs, strict=True)
            label = f"{name}, second start" if "classify" in name else name
            print(f"| {label} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {max(peaks):.0f} |", flush=True)


if __name__ == "__main__":
    main()
