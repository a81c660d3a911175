"""The command's way in and out: every end of it is an exit code and, unless all went well, one sentence."""

import sys

from alignx_fast.stops import STOPPED, Stop, stopped
from alignx_fast.streams import OutputLostError, steady_streams

MISTAKE = 2
"""Exit code of what the user, or the place where the command runs, must change."""

GOES_ON = ("train", "study", "prepare", "export", "report")
"""Commands that leave files, for which what they print can be spared."""
SAME_COMMAND = ", then give the same command again. What was written before is complete."
AGAIN = {
    "train": ", then continue with --resume. What was written before is complete.",
    "study": SAME_COMMAND,
    "prepare": SAME_COMMAND,
}


def main() -> None:
    """Run the command line. Exit codes: 0, 2 for a mistake or a place that does not work, 130 for a stop, 1 for a failed study."""
    verb = "".join(sys.argv[1:2])
    leaves_file = any(word.split("=")[0] == "--output" for word in sys.argv[2:])
    with Stop() as stop, steady_streams(goes_on=verb in GOES_ON or (verb == "evaluate" and leaves_file)):
        code = _run(verb, stop)
    if code:
        sys.exit(code)


def _run(verb: str, stop: Stop) -> int | str | None:
    """The exit code of the command; errors of the program itself are raised."""
    try:
        try:
            _command()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        return code
    except OutputLostError as error:
        return 0 if error.reader_gone else _say(str(error), MISTAKE)
    except KeyboardInterrupt:
        return _say(stopped(), STOPPED)
    except Exception as error:
        if stop.asked:  # a library has made another exception of it
            return _say(stopped(), STOPPED)
        sentence = _sentence(error, verb)
        if sentence is None:
            raise
        return _say(sentence, MISTAKE)


def _command() -> None:
    # Imported when signals and streams are ready, since it takes a moment.
    from alignx_fast import logs, process
    from alignx_fast.cli import app
    from alignx_fast.errors import UserError

    process.set_up_process()
    if process.rank() == 0:  # the others would say the same
        logs.configure()
    if process.count() > 1 and sys.argv[1:2] != ["train"]:
        raise UserError("Only `train` runs as several processes: give this command without torchrun or accelerate.")
    _check_arguments()
    app(sys.argv[1:])


def _check_arguments() -> None:
    from alignx_fast.errors import UserError

    for word in sys.argv[1:]:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UserError(
                f"{word!a} is not valid UTF-8, as names of files must be: rename it, or set a UTF-8 locale (LC_ALL=C.UTF-8)."
            )


def _sentence(error: Exception, verb: str) -> str | None:
    """What to tell the user; None for an error of the program itself."""
    from alignx_fast.environment import PACKAGES
    from alignx_fast.errors import UserError
    from alignx_fast.places import refusal

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").replace("_", "-")
        if package in PACKAGES:
            return f"{package} is not installed: `pip install {package}`; `alignx-fast doctor` shows what else is missing."
    return refusal(error, AGAIN.get(verb, ", then give the command again."))


def _say(text: str, code: int) -> int:
    from alignx_fast.printing import printable
    from alignx_fast.process import local_rank

    if local_rank() == 0:  # every process has the sentence
        print(f"alignx-fast: {printable(text)}", file=sys.stderr, flush=True)
    return code
