"""The one exception that speaks to the user."""


class UserError(Exception):
    """A mistake in what the user gave us: one clear sentence with the fix in it. The command line prints it and exits with 2."""


def first_line(error: Exception) -> str:
    """The first line of a library's message, closed like a sentence, to be quoted in ours."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if line.endswith((".", "!", "?")) else line + "."
