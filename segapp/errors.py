"""The one exception that a tool shows as a single line."""


class UserError(Exception):
    """Something a user can mend: the message says what is wrong and what to do, in one line."""
