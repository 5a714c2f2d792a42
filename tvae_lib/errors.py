"""What a user is told: errors whose message is one sentence, which a notebook shows without a traceback."""


class UserError(Exception):
    """Something that the person at the keyboard can mend; the message, one sentence, says what and how."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this
        return [f"{type(self).__name__}: {self}"]


class ParameterError(UserError, ValueError):
    """A parameter is out of its range; raised before anything is trained or written."""


class FileError(UserError):
    """A file cannot be read or written, or is not the one that was written."""


class DivergenceError(UserError, FloatingPointError):
    """A training left the finite numbers."""


def shown(value, most: int = 200) -> str:
    """A value for a sentence: its repr on one line, cut where it is longer than `most` characters."""
    try:
        text = repr(value)
    except Exception:  # whatever the value's own repr raises
        text = f"<{type(value).__name__} too large to show>"
    text = " ".join(text.splitlines())
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
