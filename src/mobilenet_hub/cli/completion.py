"""`mobilenet completion SHELL`: print what teaches a shell to complete our commands, options and files."""

import argparse

EXAMPLES = (
    "mobilenet completion bash > ~/.local/share/bash-completion/completions/mobilenet",
    "mobilenet completion zsh > ~/.zfunc/_mobilenet",
)
_SHELLS = ("bash", "zsh", "tcsh")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=f"{', '.join(_SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the shell's script, made from every command's parser."""
    import shtab

    from mobilenet_hub.cli.main import COMMANDS, command_parser

    program = argparse.ArgumentParser(prog="mobilenet")
    commands = program.add_subparsers()
    for name, summary in COMMANDS.items():
        parser = command_parser(name)
        for action in parser._actions:
            if action.nargs != 0 and action.choices is None and action.type is None:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        commands.add_parser(name, help=summary, parents=[parser], add_help=False)
    print(shtab.complete(program, args.shell))
    return 0
