"""What a user is shown of an error, whatever a file or a name put into it."""

import pickle

from segapp.base.errors import MOST_SHOWN, UserError


def test_a_message_is_one_line_that_can_be_shown() -> None:
    """Paths that are no text come with surrogates, damaged files with anything."""
    error = UserError("a\r\nb  c\t\0\x1b[31m\u2028\udce9: é 漢字 no such file")
    assert str(error) == r"a b  c\t\x00\x1b[31m \udce9: é 漢字 no such file"
    assert str(pickle.loads(pickle.dumps(error))) == str(error), "it comes from other processes, too"


def test_of_a_vast_message_both_ends_are_shown() -> None:
    message = str(UserError(f"a.yaml: {'x' * 1_000_000} is no class; say null"))
    assert len(message) < MOST_SHOWN + 10
    assert message.startswith("a.yaml: xx")
    assert message.endswith("xx is no class; say null")
