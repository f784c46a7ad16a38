"""The kit for Android: a Gradle module with the model as C through JNI, and in LiteRT."""

from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.embed import c99
from edgecnn.embed.content import Content, literal, reset_call, template

_FILES = (
    "README.md", "build.gradle.kts", "src/main/cpp/CMakeLists.txt", "src/main/cpp/jni.c", "src/main/kotlin/Model.kt",
    "src/main/kotlin/NativeModel.kt", "src/main/kotlin/LiteRtModel.kt", "src/androidTest/kotlin/Golden.kt",
    "src/androidTest/kotlin/NativeGoldenTest.kt", "src/androidTest/kotlin/LiteRtGoldenTest.kt",
)  # fmt: skip
_OF_PICTURES = ("src/main/kotlin/Pixels.kt", "examples/Camera.kt")


def make(model: Path, data: str | None) -> Content:
    """The kit of the .tflite at ``model``; raises as ``c99.generate`` does."""
    made = c99.generate(model, data)
    name, about = made.name, made.about
    shape = about["inputs"][0]["shape"]
    picture = about["pixels"] and len(shape) == 3 and shape[2] in (1, 3)
    values = made.names | {
        "package": f"{name}_kit",  # no keyword of Kotlin
        "jni": f"{name}_kit".replace("_", "_1"),
        "begin": reset_call(name, made.model),
        "inputs": ", ".join(_end(spec) for spec in about["inputs"]),
        "outputs": ", ".join(_end(spec) for spec in about["outputs"]),
        "labels": ", ".join(_text(label) for label in about["labels"]),
        **about["inputs"][0]["raw"],
        **_usage(name, about, picture),
    }
    if picture:
        values |= dict(zip(("height", "width", "channels"), shape, strict=True))
    files = {file: template(f"android/{file}", values) for file in (*_FILES, *(_OF_PICTURES if picture else ()))}
    files |= {
        f"src/main/cpp/{name}.h": made.code.header.encode(),
        f"src/main/cpp/{name}.c": made.code.source.encode(),
        f"src/main/assets/{name}.tflite": made.model.content,
        f"src/androidTest/resources/{name}.golden": c99.golden_lines(made),
    }
    return Content(name=name, files=files, arena_bytes=made.code.plan.arena_bytes)


def _end(spec: dict[str, Any]) -> str:
    """An input or output, in Kotlin."""
    limits = np.iinfo(spec["dtype"])
    numbers = f"{spec['size']}, {spec['scale']!r}f, {spec['zero_point']}, {limits.min}, {limits.max}"
    return f"End({_text(spec['name'])}, {numbers})"


def _text(text: str) -> str:
    return literal(text).replace("$", r"\$")  # or Kotlin would insert a variable


def _usage(name: str, about: dict[str, Any], picture: bool) -> dict[str, str]:
    """What the README says of pictures, classes and state."""
    use = pictures = state = ""
    if about["ranked"] and len(about["outputs"]) == 1 and about["outputs"][0]["size"] > 1:
        use += "    val best = outputs[0].indices.maxByOrNull { outputs[0][it] }!!\n"
        use += f"    val label = {name}_kit.Model.LABELS[best]\n"
    if picture:
        use += f"\n`{name}_kit.pixels(bitmap)` makes values of a picture. `examples/Camera.kt` is an analyser for\n"
        use += "CameraX 1.3 or later: `analysis.setAnalyzer(executor, Camera(model) { outputs -> … })`.\n"
        pictures = f"| `{_OF_PICTURES[0]}`, `{_OF_PICTURES[1]}` | pictures as inputs; an analyser for CameraX |\n"
    if about["stateful"]:
        state = " The model remembers earlier inputs: `NativeModel.reset()` begins again; make a new `LiteRtModel`."
    return {
        "use": use,
        "pictures": pictures,
        "shape": " × ".join(map(str, about["inputs"][0]["shape"])),
        "state": state,
    }
