"""Help of two lengths, examples that are true, errors of one line, completion in a real shell."""

import shlex
import shutil
import subprocess
import sys

import pytest

from mobilenet_hub.cli.main import COMMANDS, command_parser, main
from mobilenet_hub.exporting.formats import FORMATS


def shown(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_is_demanded_and_examples_that_the_parser_takes(command, capsys):
    text = shown(capsys, command, "--help")
    assert text.startswith(f"usage: mobilenet {command}") and "[options]" in text.splitlines()[0]
    examples = [line.strip() for line in text.split("examples:")[1].strip().splitlines()]
    assert examples
    for example in examples:
        words = shlex.split(example.split(" > ")[0])
        assert words[:2] == ["mobilenet", command], example
        args = command_parser(command).parse_words(words[2:])
        assert command != "export" or args.format in FORMATS


def test_seldom_used_options_stand_in_the_long_help_alone(capsys):
    short, long = shown(capsys, "train", "--help"), shown(capsys, "train", "--help-all")
    assert "--fine-tune" in short and "--label-smoothing" not in short and "--debug" not in short
    assert "--fine-tune" in long and "--label-smoothing" in long and "--debug" in long
    assert len(short) < len(long) * 0.7
    for command in COMMANDS:
        flags = {flag for action in command_parser(command)._actions for flag in action.option_strings}
        assert all(flag in shown(capsys, command, "--help-all") for flag in flags)


@pytest.mark.parametrize("words", [("train",), ("similar", "a.jpg"), ("classify", "a.jpg", "--nonsense"), ("pull",)])
def test_a_usage_error_is_one_line(words, capsys):
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith(f"mobilenet {words[0]}: ") and f"`mobilenet {words[0]} --help`" in said


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_and_options(tmp_path):
    script, asked = tmp_path / "completion", [sys.executable, "-m", "mobilenet_hub.cli.main", "completion", "bash"]
    script.write_text(subprocess.run(asked, capture_output=True, text=True).stdout)

    def completed(*words):
        line = " ".join(map(shlex.quote, words))
        ask = (
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_mobilenet; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        run = subprocess.run(["bash", "-c", f"source {script}; {ask}"], capture_output=True, text=True, cwd=tmp_path)
        return run.stdout.split()

    assert {"classify", "convert", "completion"} <= set(completed("mobilenet", "c"))
    assert completed("mobilenet", "train", "--fi") == ["--fine-tune"]
