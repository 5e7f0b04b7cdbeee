"""The exceptions that the commands turn into a single line for the user."""


class UserError(Exception):
    """Something the user can mend: the message is one line that names the file or argument and the remedy."""


class UsageError(UserError):
    """A command was not called as it can be: its exit status is 2, as argparse has it."""
