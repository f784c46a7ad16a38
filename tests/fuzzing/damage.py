"""Damage that does not know what it damages: to bytes, and to trees of JSON types."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What bytes become


def flipped(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ draw.randrange(1, 256)]) + content[at + 1 :]


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def zeroed(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    gone = min(draw.randrange(64), len(content) - at)
    return content[:at] + bytes(gone) + content[at + gone :]


def inserted(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:]


def spliced(content: bytes, draw: random.Random) -> bytes:
    """A piece stands a second time, over something else."""
    at, start = draw.randrange(len(content)), draw.randrange(len(content))
    piece = content[start : start + 4 * draw.randrange(1, 9)]
    return content[:at] + piece + content[at + len(piece) :]


def word(content: bytes, draw: random.Random) -> bytes:
    """Another number or reference, of four bytes."""
    at = draw.randrange(len(content)) // 4 * 4
    return content[:at] + (draw.choice(INTEGERS) % 2**32).to_bytes(4, "little") + content[at + 4 :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, zeroed, inserted, spliced, word)
INTEGERS = (0, 1, -1, 2, 3, 5, 127, -128, 255, 999, 65536, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**64, 10**40)
REALS = (0.0, -1.0, 1.0, 0.5, 1e-45, 1e-38, 1e38, 1e308, -0.0, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    " ",
    "\0",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "a\r\n=1+1",
    "=1+1",
    "../../x",
    "/",
    "| a ` b *",
    "<script>alert(1)</script>",
    "*/ int x; /*",
    "\\\n",
    "\u202eevil",
    "x" * 100_000,
    "é" * 300,
    "NaN",
)


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """``content`` after one to three kinds of damage."""
    for _ in range(draw.randrange(1, 4)):
        content = draw.choice(BYTES)(content, draw) if content else content
    return content


def damage_bytes(path: Path, draw: random.Random) -> None:
    """Damage the file at ``path``, or one of the files below it."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    chosen = draw.choice(files)
    chosen.write_bytes(damaged_bytes(chosen.read_bytes(), draw))


# What trees of dictionaries, lists, numbers and texts become


def damaged_tree(tree: Any, draw: random.Random) -> Any:
    """``tree`` with one to three of its parts changed, in place where that can be."""
    for _ in range(draw.randrange(1, 4)):
        places: dict[str, list[tuple[Any, Any]]] = {}
        _places(tree, "$", places)
        if not places:
            return _another(tree, draw)
        holder, key = draw.choice(places[draw.choice(sorted(places))])
        kind = draw.randrange(12)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(TEXTS)[:300]] = holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif kind == 3 and isinstance(holder, list):
            del holder[key]
        else:
            holder[key] = _another(holder[key], draw)
    return tree


def _places(tree: Any, path: str, found: dict[str, list[tuple[Any, Any]]]) -> None:
    """Every part of ``tree``, as its holder and its key there, by its path with the indices of lists left out."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        below = f"{path}.{key}" if isinstance(tree, dict) else f"{path}[]"
        found.setdefault(below, []).append((tree, key))
        _places(value, below, found)


def _another(value: Any, draw: random.Random) -> Any:
    """Mostly something else of the same type."""
    kind = draw.randrange(10)
    if kind == 0:
        return draw.choice((None, True, 0, -1, 1.5, "", [], {}, [[]], [None], {"": 0}))
    if kind == 1 and draw.randrange(4) == 0:
        return nested(draw.choice((50, 2000, 100_000)))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((*INTEGERS, value + 1, value - 1, 2 * value, -value))
    if isinstance(value, float):
        return draw.choice((*REALS, -value, 2 * value))
    if isinstance(value, str):
        return draw.choice((*TEXTS, value + "x", value[:-1], value * 2, value.upper()))
    if isinstance(value, list):
        return draw.choice((value[:-1], value[1:], value + value[:1], value[::-1], [], value * 2))
    if isinstance(value, dict):
        return draw.choice(({}, None, [value]))
    return draw.choice((0, 1, -1, 0.5, "x", [], {}))


class _Raw:
    """Text that stands in JSON as it is."""

    def __init__(self, text: str) -> None:
        self.text = text


def nested(depth: int) -> _Raw:
    """A list in a list in a list …"""
    return _Raw("[" * depth + "]" * depth)


def json_of(tree: Any) -> bytes:
    """``tree`` as JSON, with NaN and the infinities as Python writes them."""
    raw: list[str] = []

    def text_of(value: Any) -> str:
        raw.append(value.text)
        return f"\ufffc{len(raw) - 1}\ufffc"

    text = json.dumps(tree, default=text_of)
    for index, piece in enumerate(raw):
        text = text.replace(f'"\\ufffc{index}\\ufffc"', piece)
    return text.encode()


def damage_json(path: Path, draw: random.Random) -> None:
    """Damage the JSON file at ``path``: mostly what it says, sometimes its bytes."""
    if draw.randrange(4):
        path.write_bytes(json_of(damaged_tree(json.loads(path.read_bytes()), draw)))
    else:
        damage_bytes(path, draw)
