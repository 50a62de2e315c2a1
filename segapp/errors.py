"""The one exception that a tool shows as a single line."""


class UserError(Exception):
    """Something a user can mend: the message says what is wrong and what to do, in one line."""


def and_more(count: int) -> str:
    """What follows the first of `count` things alike."""
    return f" (and {count - 1} more)" if count > 1 else ""
