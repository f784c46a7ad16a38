"""Text from files, third parties and file systems, made fit to be shown."""

NAME = 255
"""Characters of a name that are shown at most: as many as a file system allows, so that no file's name is cut."""

MESSAGE = 1000
"""Characters of a sentence that are shown at most."""


def shown(text: str, most: int = MESSAGE) -> str:
    r"""``text`` on one line of at most ``most`` characters, cut in the middle where it is longer.

    What does not print (control characters, line breaks, marks that change the direction, halves of surrogate pairs)
    is written as Python would escape it, such as ``\x1b``. What was shown before stays as it is.
    """
    if len(text) > most:  # the end of a sentence tells what to do next, that of a file's name its kind
        end = most // 3
        text = f"{text[: most - end - 1]}…{text[-end:]}"
    if text.isprintable():
        return text
    escaped = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown("".join(escaped), most)
