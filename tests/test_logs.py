"""Messages: plain lines on the command line, nothing in a program that has not asked for them."""

import subprocess
import sys

import pytest

from alignx_fast import logs

SAY = "logs.LOGGER.info('a step'); logs.LOGGER.warning('careful'); logs.LOGGER.debug('a detail')"


@pytest.mark.parametrize(
    ("setup", "out", "err"),
    [
        ("", "", ""),
        ("logs.configure(); logs.configure()", "a step\ncareful\n", ""),
        ("logging.basicConfig(level=logging.WARNING, format='%(name)s: %(message)s')", "", "alignx_fast: careful\n"),
    ],
    ids=["library", "command line", "program that configures logging"],
)
def test_who_sees_messages(setup: str, out: str, err: str) -> None:
    code = f"import logging; from alignx_fast import logs; {setup}\n{SAY}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (out, err)


def test_messages_follow_a_redirected_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.LOGGER.info("one [bold]word[/bold]")
    assert capsys.readouterr().out == "one [bold]word[/bold]\n"


def test_messages_do_not_control_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.LOGGER.warning("no file %s", "\x1b[31m\u202ex")
    assert capsys.readouterr().out == "no file \\x1b[31m\\u202ex\n"
