"""Pulls one module in many processes at once, kills some of them, and looks at what is left; run as a program.

    python pullers.py HANDLE ROUNDS PROCESSES KILLED SEED

The processes are forked before anything else runs, so that a round takes no longer than its pulls.
"""

import os
import random
import shutil
import signal
import sys
import time

from mobilenet_hub.store.cache import cache_folder, check, entry_folder
from mobilenet_hub.store.download import Policy
from mobilenet_hub.store.pull import pull


def main(handle, rounds, processes, killed, seed):
    dice = random.Random(seed)
    usual_s = 0.3
    for number in range(rounds):
        started = time.monotonic()
        children = [fork(handle) for _ in range(processes)]
        victims = dice.sample(children, killed)
        for at, victim in sorted((dice.uniform(0, 1.2 * usual_s), victim) for victim in victims):
            time.sleep(max(0.0, started + at - time.monotonic()))
            os.kill(victim, signal.SIGKILL)
        codes = {child: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        took_s = time.monotonic() - started
        usual_s = 0.5 * usual_s + 0.5 * took_s
        assert all(codes[child] == 0 for child in children if child not in victims), (number, codes)
        assert all(codes[victim] in (0, -signal.SIGKILL) for victim in victims), (number, codes)
        check(entry_folder(handle))
        left = sorted(path.name for path in cache_folder().iterdir())
        assert left == ["google"], (number, left)
        inside = sorted(path.name for path in entry_folder(handle).iterdir())
        assert inside == ["module.json", "origin.json", "weights.safetensors"], (number, inside)
        shutil.rmtree(cache_folder() / "google")
        print(f"{took_s:.2f} s, {sum(code != 0 for code in codes.values())} killed", flush=True)


def fork(handle):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        pull(handle, policy=Policy(first_pause_s=0.01))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
