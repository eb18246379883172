"""The blocks of a Markdown page, run in order in one folder as a reader would, and held against what the page prints.

- `console`: commands after "$ ", each followed by all that it prints, on a terminal of 100 columns. "..." stands for
  anything, as does a figure before a unit of time or speed; a figure with decimals may differ by what another CPU's
  rounding makes of it, or one photo more that is right.
- `sh`: commands, each of which must succeed; what they print is not shown.
- `python`: runs; the text of a comment after `print(...)` is what it prints.

`<!-- not run: REASON -->` before a block is why it cannot be run here; `<!-- with: BACKEND -->` runs it with that
backend of Keras alone. `mobilenet serve` and `python -m http.server` stay up until the page ends.
"""

import io
import os
import re
import shlex
import signal
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from servers import closed_port
from terminal import Terminal

COLUMNS = 100
RUN = ("console", "sh", "python")
_REMARK = re.compile(r"<!-- (not run|with): (.+?) -->", re.DOTALL)
_TIMES = re.compile(r"\d[\d,]*(\.\d+)?(?= (s|ms|images/s|photos/s)\b)")
_BARS = re.compile(r"[█▏▎▍▌▋▊▉]+")
_FIGURE = re.compile(r"( ?\.\.\. ?|\d+\.\d+(?: ?%)?)")
_POINTS = 2.0  # of a percentage: one of the 71 test photos of ants and bees is 1.4
_MISSING = re.compile(r"needs (\S+?), which is not installed")
_UP = re.compile(r"mobilenet serve|http\.server")
# With these f32 stands for auto, so that the figures are those of any CPU.
_F32 = ("train", "classify", "evaluate", "embed")
_SHIM = """#!{python}
import sys
from mobilenet_hub.cli.main import main
words = sys.argv[1:]
if words and words[0] in {f32} and not {{"--precision", "--help", "--ray", "--fine-tune"}} & set(words):
    words += ["--precision", "f32"]
sys.exit(main(words))
"""


@dataclass(frozen=True)
class Block:
    """A code block: its language, text, first line, and why it is not run, if it is not."""

    language: str
    text: str
    line: int
    why_not: str = ""
    backend: str = ""  # of Keras, where it runs with one only


class StaleError(AssertionError):
    """A page shows something else than its command prints."""

    def __init__(self, command, shown, printed):
        super().__init__(f"the page is stale: $ {command}\n{printed}--- instead of\n{shown}")
        self.shown, self.printed = f"$ {command}\n{shown}", f"$ {command}\n{printed}"


def blocks(page):
    """Return the code blocks of a page, also those that are indented."""
    from markdown_it import MarkdownIt

    found, remark = [], {}
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type in ("fence", "code_block"):
            why_not, backend = remark.get("not run", ""), remark.get("with", "")
            found.append(Block(token.info.strip(), token.content, token.map[0] + 1, why_not, backend))
        said = _REMARK.fullmatch(token.content.strip()) if token.type == "html_block" else None
        remark = {said[1]: " ".join(said[2].split())} if said else {}
    return found


def same(shown, printed):
    """Whether a text is what the page shows, but for what differs from run to run and from CPU to CPU."""
    shown, printed = (
        "\n".join(" ".join(_BARS.sub("", _TIMES.sub("0", line)).split()) for line in lines if line.strip())
        for lines in (shown, printed)
    )
    pieces = _FIGURE.split(shown)
    figures = [piece for piece in pieces[1::2] if "..." not in piece]
    pattern = dict.fromkeys(pieces[1::2], ".*?") | {
        figure: r"(\d+\.\d+)" + figure.lstrip(".0123456789") for figure in figures
    }
    found = re.fullmatch("".join(pattern.get(piece, re.escape(piece)) for piece in pieces), printed, re.DOTALL)
    return found is not None and all(map(_near, figures, found.groups()))


def _near(shown, printed):
    number = shown.rstrip(" %")
    allowed = _POINTS if shown.endswith("%") else 2 * 10.0 ** -len(number.partition(".")[2])
    return abs(float(number) - float(printed)) <= allowed + 1e-9


class Reader:
    """Somebody who types what a page says, in a folder that has what the page is about."""

    def __init__(self, folder):
        self.folder, self.scope, self.servers, self.exported = folder, {}, [], []
        self.ports = {"8080": str(closed_port()), "8000": str(closed_port())}
        programs = folder.parent / "bin"
        programs.mkdir(exist_ok=True)
        shim = programs / "mobilenet"
        shim.write_text(_SHIM.format(python=sys.executable, f32=_F32))
        shim.chmod(0o755)
        path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path}

    def read(self, block):
        """Run a block.

        Raises:
            AssertionError: it fails, or prints something else than it says.
        """
        text = re.sub(r"\b(8080|8000)\b", lambda port: self.ports[port[0]], block.text)
        getattr(self, f"_{block.language}")(replace(block, text=text))

    def close(self):
        """End the servers."""
        for server in self.servers:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGTERM)
            server.close()

    def _python(self, block):
        shown = re.findall(r"^ *print\(.*\)  # (.+)$", block.text, re.MULTILINE)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * block.line + block.text, "the page", "exec"), self.scope)
        if shown:
            assert same(shown, printed.getvalue().splitlines()), printed.getvalue()

    def _sh(self, block):
        for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
            command = re.sub(r"\s+#.*$", "", line)
            if command and not command.startswith("#"):
                printed, status = self._run(command)
                found = command.startswith("mobilenet check") and status == 1
                assert status == 0 or found, (command, printed)

    def _console(self, block):
        for command, shown in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            printed, _ = self._run(command, shown.splitlines())
            if not same(shown.splitlines(), printed):
                raise StaleError(command, shown, "\n".join(printed).strip() + "\n")

    def _run(self, command, shown=()):
        """Return what a command printed and its exit status; of a server, what it printed once it was up."""
        up = _UP.search(command)
        if up and up[0] == "mobilenet serve" and "--port" not in command:
            command += f" --port {self.ports['8080']}"
        if command.startswith("export "):
            self.exported.append(command)
        words = ["bash", "-c", "; ".join(["set -o pipefail", *self.exported, command])]
        terminal = Terminal(COLUMNS, words, cwd=self.folder, stderr=None, stdin=None, env=self.environment)
        if up:
            self.servers.append(terminal)
            printed, status = terminal.screen(until=b"on http" if shown else b" ", timeout_s=120), 0
        else:
            printed = terminal.screen(timeout_s=300)
            status = terminal.close()
        if missing := _MISSING.search("\n".join(printed)):
            pytest.skip(f"needs {missing[1]}, which comes with an extra")
        return printed, status


def commands_in(text):
    """Return the lines of a text that look like something to type."""
    typed = re.compile(r"^(\$ )?(mobilenet|pip|python3?|curl|export|git) ")
    return [line for line in text.splitlines() if typed.match(line.strip()) and shlex.split(line, comments=True)]
