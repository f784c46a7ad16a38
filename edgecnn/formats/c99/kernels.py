"""The kernels' files: sections of C, their dependencies, and the order in which a kernel reads and writes."""

import functools
import re
from collections.abc import Mapping, Set
from importlib import resources

import msgspec

_FILES = ("kernels.c", "kernels_mve.c")


class _Section(msgspec.Struct, frozen=True):
    """Code, the names of required sections, and a kernel's order, if any (see kernels.c)."""

    needs: tuple[str, ...]
    order: str | None
    code: str


def order(kernel: str) -> str | None:
    """The order, "values", "pixels" or "channels", declared by all variants of a kernel; see kernels.c.

    None if a variant declares none or another order: then the output must not overlap the input.
    """
    orders = {sections[kernel].order for sections in map(_sections, _FILES) if kernel in sections}
    return orders.pop() if len(orders) == 1 else None


def code(wanted: Set[str], variants: Mapping[str, str]) -> str:
    """The code of ``wanted`` sections and their dependencies, in file order.

    Helium sections replace those of the same name. ``variants`` maps names of sections to their replacements.
    """
    portable, helium = map(_sections, _FILES)
    needed: set[str] = set()
    waiting = ["base", *wanted]
    while waiting:
        section = waiting.pop()
        section = variants.get(section, section)
        if section not in needed:
            needed.add(section)
            for sections in (portable, helium):
                waiting += sections[section].needs if section in sections else ()
    replaced = [section for section in portable if section in helium]
    parts = []
    for section in portable:
        if section == replaced[0]:  # the first that needs Helium-only sections
            parts += [_for_helium(helium[own].code) for own in helium if own in needed and own not in portable]
        if section in needed:
            plain = portable[section].code
            parts.append(_for_helium(helium[section].code, f"#else\n{plain}") if section in helium else plain)
    return "\n".join(parts)


def _for_helium(code: str, otherwise: str = "") -> str:
    return f"#ifdef HELIUM\n{code}{otherwise}#endif\n"


@functools.cache
def _sections(file: str) -> dict[str, _Section]:
    """The sections of a file of kernels by name."""
    header = r"^//@ (?P<name>\w+)(?: \((?P<order>values|pixels|channels)\))?:(?P<needs>.*)\n"
    found = re.finditer(header + r"(?P<code>(?:(?!//@).*\n)*)", _text(file), re.MULTILINE)
    return {section["name"]: _Section(tuple(section["needs"].split()), section["order"], section["code"])
            for section in found}  # fmt: skip


def _text(file: str) -> str:
    return resources.files("edgecnn.formats.c99").joinpath(file).read_text()
