"""The kit for iOS: a Swift package around the generated C."""

from pathlib import Path
from typing import Any

from edgecnn.embed import c99
from edgecnn.embed.content import Content, literal, template

_SWIFT = {"int8": "Int8", "uint8": "UInt8", "int16": "Int16", "int32": "Int32"}


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; raises as ``c99.generate`` does."""
    made = c99.generate(model, data)
    name, about = made.name, made.about
    values = made.names | {
        "in_swift": _SWIFT[about["inputs"][0]["dtype"]],
        "out_swift": _SWIFT[about["outputs"][0]["dtype"]],
        "inputs": ", ".join(_end(spec) for spec in about["inputs"]),
        "outputs": ", ".join(_end(spec) for spec in about["outputs"]),
        "labels": ", ".join(literal(label) for label in about["labels"]),
        **about["inputs"][0]["raw"],
        **_usage(name, about),
    }
    places = {
        "README.md": "README.md",
        "Package.swift": "Package.swift",
        "Sources/C/module.modulemap": f"Sources/{name}_c/include/module.modulemap",
        "Sources/Swift/Model.swift": f"Sources/{name}_kit/Model.swift",
        "Tests/GoldenTests.swift": f"Tests/{name}_tests/GoldenTests.swift",
    }
    files = {place: template(f"ios/{source}", values) for source, place in places.items()}
    files |= {
        f"Sources/{name}_c/include/{name}.h": made.code.header.encode(),
        f"Sources/{name}_c/{name}.c": made.code.source.encode(),
        f"Tests/{name}_tests/{name}.golden": c99.golden_lines(made),
    }
    return Content(name=name, files=files, arena_bytes=made.code.plan.arena_bytes)


def _end(spec: dict[str, Any]) -> str:
    """An input or output, in Swift."""
    numbers = f"size: {spec['size']}, scale: {spec['scale']!r}, zeroPoint: {spec['zero_point']}"
    return f"End(name: {literal(spec['name'])}, {numbers})"


def _usage(name: str, about: dict[str, Any]) -> dict[str, str]:
    """What the README says of classes and state, and the function that begins again."""
    use = reset = state = ""
    if about["ranked"] and len(about["outputs"]) == 1 and about["outputs"][0]["size"] > 1:
        use = "    let best = outputs[0].indices.max { outputs[0][$0] < outputs[0][$1] }!\n"
        use += "    let label = Model.labels[best]\n"
    if about["stateful"]:
        state = " The model remembers earlier inputs: `Model.reset()` begins again."
        reset = f"""
    /// Forget the inputs before.
    public static func reset() {{
        lock.lock()
        defer {{ lock.unlock() }}
        {name}_reset()
    }}
"""
    return {
        "use": use,
        "reset_swift": reset,
        "state": state,
        "shape": " × ".join(map(str, about["inputs"][0]["shape"])),
    }
