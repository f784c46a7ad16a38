"""Makes text from files, third parties and file systems safe to display."""

NAME = 255
"""Maximum length of a displayed name, in characters; the limit of file systems, so that no file name is cut."""

MESSAGE = 1000
"""Maximum length of a displayed message, in characters."""


def shown(text: str, most: int = MESSAGE) -> str:
    r"""``text`` as one line of at most ``most`` characters; longer text is cut in the middle.

    Characters that do not print (control characters, line breaks, direction marks, lone surrogates) are escaped as in
    Python, such as ``\x1b``. Idempotent.
    """
    if len(text) > most:  # keep the end: it has the advice of a message, or the suffix of a file name
        end = most // 3
        text = f"{text[: most - end - 1]}…{text[-end:]}"
    if text.isprintable():
        return text
    escaped = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown("".join(escaped), most)
