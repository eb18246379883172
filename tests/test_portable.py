"""What other systems lack is not asked for when a file is imported, nor by the README's main job.

The names that only POSIX systems have are taken away from our own files, as on Windows; libraries keep theirs. This
shows that nothing depends on those names, not that Windows runs it.
"""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import mobilenet_hub

ROOT = Path(__file__).parents[1]

WITHOUT_POSIX = """
import builtins, os, signal, sys, time, types

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "curses", "posix"}
NAMES = {
    os: "pread pwrite preadv fork forkpty getuid geteuid getgid getegid getpgid killpg mkfifo mknod chown lchown uname "
    "sched_getaffinity sched_setaffinity sched_yield statvfs posix_fadvise posix_fallocate sendfile sync setsid nice "
    "register_at_fork getloadavg wait3 wait4 WNOHANG O_NONBLOCK O_DIRECTORY O_NOFOLLOW O_CLOEXEC O_SYNC "
    "O_TMPFILE fchown",
    signal: "SIGKILL SIGALRM SIGHUP SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE alarm setitimer pthread_sigmask sigwait",
    time: "tzset clock_gettime",
}
bare = {}
for module, names in NAMES.items():
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update({k: v for k, v in vars(module).items() if k not in names.split()})
    bare[module.__name__] = copy

real = builtins.__import__


def without_posix(name, globals=None, locals=None, fromlist=(), level=0):
    if not (globals or {}).get("__name__", "").startswith("mobilenet_hub"):
        return real(name, globals, locals, fromlist, level)
    if name in MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return bare[name] if name in bare else real(name, globals, locals, fromlist, level)


builtins.__import__ = without_posix
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX + code, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


def test_the_names_are_really_gone():
    done = run("exec('import os, fcntl', {'__name__': 'mobilenet_hub.any'})")
    assert "No module named 'fcntl'" in done.stderr
    done = run("exec('import os\\nos.pread', {'__name__': 'mobilenet_hub.any'})")
    assert "has no attribute 'pread'" in done.stderr


def test_every_file_is_imported_without_them():
    names = [module.name for module in pkgutil.walk_packages(mobilenet_hub.__path__, "mobilenet_hub.")]
    assert len(names) > 90
    code = """
from importlib import import_module
for name in sys.argv[1:]:
    try:
        import_module(name)
    except ImportError as error:  # an extra that is not installed here
        if not error.name or error.name in MODULES or error.name.startswith("mobilenet_hub"):
            raise
print("all")
"""
    done = run(code, *names)
    assert done.stdout == "all\n", done.stderr


def test_the_main_job_runs_without_them(tmp_path):
    done = run("from mobilenet_hub.cli.main import main\nsys.exit(main(sys.argv[1:]))", "classify", "examples/cat.jpg")
    assert done.returncode == 0, done.stderr
    assert "cat" in done.stdout.lower() or "tabby" in done.stdout.lower()
    done = run(
        "from mobilenet_hub.cli.main import main\nsys.exit(main(sys.argv[1:]))",
        *("embed", "examples", "-o", str(tmp_path / "out"), "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "part-00000.parquet").exists()
