"""The one exception that speaks to the user."""


class UserError(Exception):
    """A mistake in what the user gave us: one clear sentence with the fix in it. The command line prints it and exits with 2."""
