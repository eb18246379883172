"""How a command line is read: help of two lengths with examples, and an error of one line."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

_EXIT_USAGE = 2
_MARK = "\0"


def mark_seldom(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Mark options that few people need: `--help-all` shows them, `--help` does not."""
    for flag in flags:
        parser._option_string_actions[flag].seldom = True  # type: ignore[attr-defined]


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, with the options that every command takes.

    Example:
        >>> parser = CommandParser("pull", "fetch modules", ("mobilenet pull starter",))
        >>> parser.add_common()
        >>> parser.parse_words(["--json"]).json
        True
    """

    def __init__(self, command: str, summary: str, examples: Sequence[str]):
        """Make the parser of a command.

        Args:
            command: its name.
            summary: what it does, in a line.
            examples: command lines that work, most wanted first.
        """
        super().__init__(
            prog=f"mobilenet {command}",
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
            formatter_class=_Formatter,
            add_help=False,
        )

    def add_common(self) -> None:
        """Declare what every command takes; after its own, so that help ends with it."""
        common = self.add_argument_group("for every command")
        common.add_argument("--json", action="store_true", help="print the result as JSON")
        common.add_argument("--quiet", action="store_true", help="no progress, no notes")
        common.add_argument("--debug", action="store_true", help="show the traceback of an error")
        mark_seldom(self, "--debug")
        common.add_argument("-h", "--help", action=_Help, const=False, help="show this and end")
        if any(_is_seldom(action) for action in self._actions):
            common.add_argument("--help-all", action=_Help, const=True, help="show the seldom used options too")

        self.usage = " ".join([self.prog, *self._demanded(), "[options]"])

    def _demanded(self) -> Iterator[str]:
        """Yield the words that the command takes without a flag, and the options that it cannot do without."""
        formatter = self._get_formatter()
        for action in sorted(self._actions, key=lambda action: bool(action.option_strings)):
            metavar = action.metavar if isinstance(action.metavar, str) else action.dest
            named = formatter._format_args(action, metavar) if action.nargs != 0 else ""
            if not action.option_strings:
                yield str(named)
            elif action.required:
                yield f"{action.option_strings[0]} {named}"

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse words of which those after -- are names, whatever they begin with.

        Where options may stand between names argparse forgets that. Such a name gets a mark in front on its way, one
        that no word of a command line can hold.
        """
        names = words.index("--") if "--" in words else len(words)
        marked = [f"{_MARK}{word}" if word[:1] == "-" and word != "-" else word for word in words[names + 1 :]]
        args = self.parse_intermixed_args([*words[:names], *marked])
        for name, value in vars(args).items():
            if isinstance(value, str):
                setattr(args, name, value.removeprefix(_MARK))
            elif isinstance(value, list):
                setattr(args, name, [v.removeprefix(_MARK) if isinstance(v, str) else v for v in value])
        return args

    def show_help(self, *, everything: bool) -> None:
        """Print the help, with the options that few people need or, from now on, without them."""
        for action in () if everything else filter(_is_seldom, self._actions):
            action.help = argparse.SUPPRESS
        self.print_help()

    def error(self, message: str) -> NoReturn:
        """Print what was wrong and where the help is, in one line, and end."""
        self.exit(_EXIT_USAGE, f"{self.prog}: {message}; `{self.prog} --help` shows how\n")


class _Help(argparse.Action):
    """Show the help and end, as argparse's own does; `const` says whether all of it."""

    def __init__(self, option_strings: Sequence[str], dest: str, const: bool, help: str | None = None):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, const=const, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, CommandParser)
        parser.show_help(everything=self.const)
        parser.exit()


class _Formatter(argparse.HelpFormatter):
    """argparse's own, which keeps the lines of a text that has several."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


def _is_seldom(action: argparse.Action) -> bool:
    return getattr(action, "seldom", False)
