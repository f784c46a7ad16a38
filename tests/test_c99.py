"""Whole models as C: TFLite Micro's bytes, no undefined step, and clear words about what cannot be written."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from fuzzing.models import BODIES, source_of
from generated import (
    DUAL_MAC,
    WARNINGS,
    Model,
    Tflm,
    compiled,
    dual_mac_tools,
    generate,
    need,
    needs_tflm,
    random_inputs,
    run,
    run_program,
    tflm_process,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tflite_damage import option, repacked

from edgecnn import artifacts
from edgecnn.errors import ArtifactError, ConfigError, SessionError, UnsupportedError
from edgecnn.formats import FORMATS, export_file, pairs, provenance_of, tflite
from edgecnn.formats.c99 import identifier, to_c
from edgecnn.formats.c99 import plan as arena
from edgecnn.formats.c99.plan import Overlap, Use
from edgecnn.formats.source import Source
from edgecnn.models import MODELS
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.runtimes import open_session, predict
from edgecnn.tflite.graph import read_graph

pytestmark = pytest.mark.slow

L = keras.layers
plain, branched, rearranged = BODIES
ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "files" / "tiny-int8.tflite"
SHAPES = {
    "mnist_cnn": ((28, 28, 1), 10),
    "resnet8": ((32, 32, 3), 10),
    "ds_cnn": ((49, 10, 1), 12),
    "mobilenet_v1_025": ((96, 96, 3), 2),
    "mobilenet_v2": ((48, 48, 3), 20),
}
# bytes of arena that the generated code may take: what is planned now, and what the interpreter needs for comparison
ARENAS = {"mnist_cnn": 21_680, "resnet8": 34_000, "ds_cnn": 8_500, "mobilenet_v1_025": 42_000, "mobilenet_v2": 60_000}


@pytest.fixture(scope="module")
def tflm() -> Iterator[Tflm]:
    with tflm_process() as process:
        yield process


def lively(model: Any) -> Any:
    """``model`` with weights, biases and statistics that keep its values apart through many layers."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" in weight.path:
            inputs = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:-1])
            weight.assign(random.normal(0, (2 / inputs) ** 0.5, weight.shape))
        if any(part in weight.path for part in ("bias", "beta", "moving_mean")):
            weight.assign(random.normal(0, 0.3, weight.shape))
        elif "moving_variance" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    """The built-in models with random weights as int8 .tflite files."""
    files = {}
    for name, (shape, classes) in SHAPES.items():
        keras.utils.set_random_seed(1)
        model = lively(MODELS[name](shape, classes))
        # logits: a softmax of random weights is the same for every image
        model = keras.Model(model.inputs, model.layers[-1].input)
        images = np.random.default_rng(0).random((8, *shape), np.float32)
        files[name] = tflite.convert(Source(model, None, images, "int8", 1), SCHEMES["int8"])
    return files


@pytest.fixture(scope="module")
def odd_files() -> dict[str, bytes]:
    """Int8 files that together have most of the operators that can be written."""
    sources = {
        "plain": source_of(plain),
        "branched": source_of(branched),
        "rearranged": source_of(rearranged),
        "free batch": source_of(plain, None),
    }
    return {name: tflite.convert(one, SCHEMES["int8"]) for name, one in sources.items()}


@needs_tflm
@pytest.mark.parametrize("name", SHAPES)
def test_built_in_models_give_the_bytes_of_tflite_micro(
    name: str, models: dict[str, bytes], tmp_path: Path, tflm: Tflm
) -> None:
    model = models[name]
    images = random_inputs(model, 6)
    wanted = tflm(model, images)
    assert len({output.tobytes() for output in wanted}) > 3, "the outputs hardly differ, so agreement says nothing"
    generated = generate(model, tmp_path)
    np.testing.assert_array_equal(run(compiled(tmp_path), model, images), wanted)
    if name != "mnist_cnn":  # no dense layer, which LiteRT rounds otherwise
        np.testing.assert_array_equal(litert(model, images, "BUILTIN_REF"), wanted)
    assert generated.plan.arena_bytes <= ARENAS[name]
    if dual_mac_tools():
        np.testing.assert_array_equal(run_program(tmp_path, model, images, DUAL_MAC, "qemu-arm"), wanted)


@needs_tflm
@pytest.mark.parametrize("name", ["branched", "rearranged", "free batch"])
def test_many_operators_give_the_bytes_of_tflite_micro(
    name: str, odd_files: dict[str, bytes], tmp_path: Path, tflm: Tflm
) -> None:
    model = odd_files[name]
    images = random_inputs(model, 50)
    generate(model, tmp_path)
    got = run(compiled(tmp_path), model, images)
    if name == "branched":  # its upsampling is a TILE, which TFLite Micro does not have: LiteRT instead
        apart = np.abs(got.astype(int) - litert(model, images, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"))
        assert np.ptp(got) > 20
        assert apart.max() <= 3
        assert apart.mean() < 0.3
    else:
        np.testing.assert_array_equal(got, tflm(model, images))


def litert(model: bytes, images: Any, kernels: str) -> Any:
    """Outputs of LiteRT with kernels of a kind."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = getattr(OpResolverType, kernels)
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    results = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.stack(results)


@needs_tflm
@pytest.mark.parametrize(("scheme", "count"), [("int8", 10_000), ("int8-qat", 1_000)])
def test_all_mnist_images_give_the_bytes_of_tflite_micro(
    scheme: str, count: int, workspace: Any, mnist: Any, tmp_path: Path, tflm: Tflm
) -> None:
    model = workspace.path("tflite", scheme).read_bytes()
    artifact = workspace.artifacts["tflite", scheme]
    quantization = artifact.input.quantization
    steps = np.round(mnist.inputs(mnist.test.images[:count]) / quantization.scale[0]) + quantization.zero_point[0]
    images = np.clip(steps, -128, 127).astype(np.int8)[:, np.newaxis]
    assert len(images) == count
    generate(model, tmp_path)
    got = run(compiled(tmp_path, "m", "cc", "-O3"), model, images)
    np.testing.assert_array_equal(got, tflm(model, images))
    assert (got[:, 0].argmax(axis=1) == mnist.test.labels[:count]).mean() > 0.85


# The code itself


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_compilers_have_nothing_to_say(
    compiler: str, level: str, models: dict[str, bytes], odd_files: dict[str, bytes], tmp_path: Path
) -> None:
    need(compiler)
    for model in (*odd_files.values(), models["ds_cnn"]):
        generate(model, tmp_path)
        compiled(tmp_path, "m", compiler, level)


def test_the_code_needs_no_library(models: dict[str, bytes], tmp_path: Path) -> None:
    generated = generate(models["mobilenet_v1_025"], tmp_path)
    portable = re.sub(r"(?<=#ifdef HELIUM\n)#include <arm_mve.h>\n", "", generated.source)
    assert re.findall(r"#include (.*)", portable + generated.header) == ['"m.h"', "<stdint.h>"]
    command = ["cc", *WARNINGS, "-O2", "-ffreestanding", "-fno-builtin", "-c", "-o", "m.o", "m.c"]
    subprocess.run(command, check=True, cwd=tmp_path)
    symbols = subprocess.run(
        ["nm", "--undefined-only", "m.o"], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert set(re.findall(r"U (\w+)", symbols.stdout)) <= {"_GLOBAL_OFFSET_TABLE_", "memset", "memcpy"}


@pytest.mark.parametrize(
    ("flags", "old", "new", "reason"),
    [
        (["--target=msp430"], "", "", "int_has_32_bits"),
        ([], "(-1 >> 1) == -1", "(-1 >> 1) == 2147483647", "right_shifts_keep_the_sign"),  # as if it were so
        ([], "(int32_t)0xffffffffu == -1", "(int32_t)0xffffffffu == 0", "conversions_to_signed_wrap"),
    ],
)
def test_compilers_with_other_integers_are_refused(
    flags: list[str], old: str, new: str, reason: str, tmp_path: Path
) -> None:
    need("clang")
    source = generate(TINY.read_bytes(), tmp_path).source
    assert old in source
    (tmp_path / "m.c").write_text(source.replace(old, new))
    command = ["clang", *flags, "-std=c99", "-ffreestanding", "-fsyntax-only", "m.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"'{reason}' declared as an array with a negative size" in done.stderr


def test_code_of_two_models_links_into_one_program(tmp_path: Path) -> None:
    """Each with its own kernels: all that is not called from outside is static."""
    for name in ("a", "b"):
        generate(TINY.read_bytes(), tmp_path, name, labels=["x", "y", "z"])
    (tmp_path / "main.c").write_text(
        '#include "a.h"\n#include "b.h"\nint8_t x[A_INPUT_SIZE], y[A_OUTPUT_SIZE], z[B_OUTPUT_SIZE];\n'
        "int main(void) { a_invoke(x, y); b_invoke(x, z); return y[0] == z[0] && y[1] == z[1] ? 0 : 1; }\n"
    )
    subprocess.run(["cc", *WARNINGS, "-o", "main", "main.c", "a.c", "b.c"], check=True, cwd=tmp_path)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_a_cpp_program_takes_the_header(models: dict[str, bytes], tmp_path: Path) -> None:
    need("g++")
    generate(models["mnist_cnn"], tmp_path, labels=[f"{digit}" for digit in range(10)])
    (tmp_path / "main.cpp").write_text(
        '#include "m.h"\nint8_t x[M_INPUT_SIZE], y[M_OUTPUT_SIZE];\n'
        "int main() { m_invoke(x, y); return m_labels[3][0] == '3' && M_INPUT_SCALE > 0 ? 0 : 1; }\n"
    )
    subprocess.run(["cc", *WARNINGS, "-c", "-o", "m.o", "m.c"], check=True, cwd=tmp_path)
    subprocess.run(["g++", "-Wall", "-Werror", "-o", "main", "main.cpp", "m.o"], check=True, cwd=tmp_path)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


@pytest.mark.parametrize("name", ["mnist_cnn", "resnet8", "ds_cnn", "branched", "rearranged"])
def test_sanitizers_find_nothing(
    name: str, models: dict[str, bytes], odd_files: dict[str, bytes], tmp_path: Path
) -> None:
    model = models[name] if name in models else odd_files[name]
    images = random_inputs(model, 4)
    generate(model, tmp_path)
    sanitized = ["cc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    got = run_program(tmp_path, model, images, sanitized)
    np.testing.assert_array_equal(got, run(compiled(tmp_path), model, images))


def test_a_sanitizer_would_find_an_arena_too_small(models: dict[str, bytes], tmp_path: Path) -> None:
    generated = generate(models["ds_cnn"], tmp_path)
    size = generated.plan.arena_bytes
    assert f"int8_t bytes[{size}]" in generated.source
    (tmp_path / "m.c").write_text(generated.source.replace(f"bytes[{size}]", f"bytes[{size - 200}]"))
    sanitized = ["cc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    with pytest.raises(AssertionError, match="global-buffer-overflow"):
        run_program(tmp_path, models["ds_cnn"], random_inputs(models["ds_cnn"], 2), sanitized)


def test_the_caller_may_give_the_arena(models: dict[str, bytes], tmp_path: Path) -> None:
    import ctypes

    model = models["ds_cnn"]
    images = random_inputs(model, 4)
    generate(model, tmp_path)
    wanted = run(compiled(tmp_path), model, images)
    generated = generate(model, tmp_path, caller_arena=True)
    assert "static union" not in generated.source
    # garbage before the call, and guards on both sides
    memory = np.full(generated.plan.arena_bytes // 4 + 16, 0x55555555, np.int32)
    invoke = compiled(tmp_path)
    arena = ctypes.c_void_p(memory.ctypes.data + 32)
    got = run(lambda x, y: invoke(x, y, arena), model, images)
    np.testing.assert_array_equal(got, wanted)
    assert (memory[:8] == 0x55555555).all()
    assert (memory[8 + generated.plan.arena_bytes // 4 :] == 0x55555555).all()


DSP = ["-D__ARM_FEATURE_DSP", "-D__OPTIMIZE__", "-D__GNUC__", "-D__thumb2__"]


def cppcheck(folder: Path, *options: str) -> str:
    need("cppcheck")
    command = ["cppcheck", "-q", "--std=c99", "--platform=unix32", *options, "m.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def misra_rules(folder: Path, *options: str) -> set[tuple[str, str]]:
    """The files and rules of messages of cppcheck's MISRA addon."""
    messages = cppcheck(folder, "--addon=misra", "--template={file} {id}", *options)
    return {(file, rule) for file, rule in re.findall(r"^(m\.\w) misra-c2012-(.*)$", messages, re.MULTILINE)}


def test_static_analysis_finds_only_what_is_documented(odd_files: dict[str, bytes], tmp_path: Path) -> None:
    """Of three models, and in DSP code: no other MISRA rule than the documented ones, no warning at all."""
    table = re.findall(
        r"^\| ([\d., ]+) \| (required|advisory) \|", (ROOT / "docs" / "c99.md").read_text(), re.MULTILINE
    )
    documented = {rule for rules, _ in table for rule in rules.split(", ")}
    advisory = {rule for rules, category in table for rule in rules.split(", ") if category == "advisory"}
    found: set[tuple[str, str]] = set()
    for model in (TINY.read_bytes(), odd_files["plain"], odd_files["branched"]):
        generate(model, tmp_path, labels=["x", "y"])
        for options in [["-DPLAIN_C"]] if model == odd_files["branched"] else [["-DPLAIN_C"], DSP]:
            assert cppcheck(tmp_path, "--enable=warning,portability", *options) == ""
            found |= misra_rules(tmp_path, *options)
    assert {rule for _, rule in found} == documented
    assert {rule for file, rule in found if file == "m.h"} <= advisory


def test_static_analysis_would_find_another_rule(tmp_path: Path) -> None:
    source = generate(TINY.read_bytes(), tmp_path).source
    planted = "int planted(void);\nint planted(void) { goto end;\nend:\n    return 07; }\n"
    (tmp_path / "m.c").write_text(source + planted)
    assert {("m.c", "15.1"), ("m.c", "7.1")} <= misra_rules(tmp_path, "-DPLAIN_C")
    (tmp_path / "m.c").write_text(source + "int planted(void);\nint planted(void) { int a[2]; return a[2]; }\n")
    assert "arrayIndexOutOfBounds" in cppcheck(tmp_path, "--enable=warning,portability")


# The plan of memory


def test_the_plan_stands_in_the_header_and_in_the_record(models: dict[str, bytes], tmp_path: Path) -> None:
    generated = generate(models["resnet8"], tmp_path)
    assert f"an arena of {generated.plan.arena_bytes} bytes" in generated.header
    for block in generated.plan.blocks:
        assert re.search(rf"^ +{block.offset} +{block.bytes} +{block.first}", generated.header, re.MULTILINE)
    assert f"#define M_ARENA_SIZE {generated.plan.arena_bytes}" in generated.header


@st.composite
def chains(draw: Any) -> tuple[dict[int, Use], dict[tuple[int, int], Overlap]]:
    count = draw(st.integers(1, 12))
    uses, overlaps = {}, {}
    for value in range(count):
        last = draw(st.integers(value, count))
        uses[value] = Use(name=str(value), size=draw(st.integers(1, 500)), first=value, last=last)
        for before in range(value):
            if uses[before].last == value and draw(st.booleans()):
                exact = draw(st.booleans())
                overlaps[value, before] = Overlap(distance=0 if exact else draw(st.integers(0, 90)), exact=exact)
    return uses, overlaps


@given(program=chains())
@settings(max_examples=200, deadline=None)
def test_values_needed_at_once_share_no_byte_except_where_they_may(program: Any) -> None:
    uses, overlaps = program
    blocks = arena.plan(uses, overlaps)
    assert [block.name for block in blocks] == [str(value) for value in uses]
    assert all(block.offset % 4 == 0 and block.offset >= 0 for block in blocks)
    for a, first in enumerate(blocks):
        for b, second in enumerate(blocks[:a]):
            together = second.last >= first.first
            apart = first.offset + first.bytes <= second.offset or second.offset + second.bytes <= first.offset
            if together and not apart:
                overlap = overlaps[a, b]
                assert uses[b].last == uses[a].first
                distance = second.offset - first.offset
                assert distance == 0 if overlap.exact else distance >= overlap.distance
    most = max(sum(use.size for use in uses.values() if use.first <= now <= use.last) for now in range(len(uses)))
    needed = arena.arena_of(dict(enumerate(block.offset for block in blocks)), uses)
    if not overlaps:
        assert most <= needed
    assert needed <= sum(use.size + 3 for use in uses.values())


# Names


@pytest.mark.parametrize("name", ["int", "class", "restrict", "main", "1st", "my-model", "", "_x", "ä", "x" * 49])
def test_names_that_c_does_not_take_are_refused(name: str, models: dict[str, bytes]) -> None:
    with pytest.raises(ConfigError, match="cannot be a name in C"):
        to_c(read_graph(models["mnist_cnn"], "x"), name)


@given(name=st.text(max_size=60))
def test_any_name_can_be_made_fit(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,47}", identifier(name))
    assert identifier("int") == "model_int"


@given(text=st.text(max_size=30))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strings_from_anywhere_stay_strings(text: str, tmp_path: Path) -> None:
    """As labels, and in the comments: nothing in them can end a comment or a string."""
    model = Model()
    first = model.tensor((1, 4), scale=0.5)
    second = model.tensor((1, 4), scale=0.5)
    model.operator("RELU", [first], second)
    model.graph.tensors[second].name = text.encode(errors="replace") + b"*/ #error??/"
    content = model.file(first, second)
    generated = to_c(read_graph(content, "x"), "m", labels=[text, "*/", '"\\', "??/"])
    (tmp_path / "m.h").write_text(generated.header)
    (tmp_path / "m.c").write_text(generated.source)
    assert generated.source.isascii()
    assert generated.header.isascii()
    compiled(tmp_path, "m", "cc", "-O0")


# What cannot be written


def unknown(model: Any, graph: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[graph.operators[1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.L2_POOL_2D


def weights_zero(model: Any, graph: Any) -> None:
    tensor = graph.tensors[graph.operators[0].inputs[1]]
    tensor.quantization.zeroPoint = [3] * len(tensor.quantization.zeroPoint)


def other_scale(model: Any, graph: Any) -> None:
    graph.tensors[graph.operators[1].outputs[0]].quantization.scale = [0.123]


def output_shape(model: Any, graph: Any) -> None:
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, 5, 4, 4]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            unknown,
            UnsupportedError,
            r"operator 1 \(L2_POOL_2D '.*'\) is not supported in int8 .onnx and C",
        ),
        (weights_zero, UnsupportedError, r"operator 0 \(CONV_2D '.*'\): its weights have a zero point"),
        (
            other_scale,
            UnsupportedError,
            r"operator 1 \(MAX_POOL_2D '.*'\): '.*' and '.*' differ in scale or zero point",
        ),
        (
            output_shape,
            ArtifactError,
            r"operator 0 \(CONV_2D '.*'\) has output shape \(1, 4, 4, 4\), but the file says \(1, 5, 4, 4\)",
        ),
        (
            option(1, fusedActivationFunction=4),
            UnsupportedError,
            r"operator 1 \(MAX_POOL_2D '.*'\): fused activation 4",
        ),
        (option(0, strideW=0), ArtifactError, r"operator 0 \(CONV_2D '.*'\): strideW is 0"),
        (option(0, padding=7), ArtifactError, r"operator 0 \(CONV_2D '.*'\): padding 7 is neither SAME nor VALID"),
        (option(1, filterHeight=99, padding=1), ArtifactError, "a kernel of 99 does not fit an input of 4"),
    ],
)
def test_reasons_are_given_with_their_place(
    change: Callable[[Any, Any], None], error: type[Exception], message: str, odd_files: dict[str, bytes]
) -> None:
    with pytest.raises(error, match=message):
        to_c(read_graph(repacked(odd_files["plain"], change), "x.tflite"), "m")


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("float32", "the graph's input '.*' is float32"),
        ("dynamic-int8", "the graph's input '.*' is float32"),
    ],
)
def test_files_that_are_not_int8_are_refused(scheme: str, message: str) -> None:
    content = tflite.convert(source_of(plain), SCHEMES[scheme])
    with pytest.raises(UnsupportedError, match=message):
        to_c(read_graph(content, "x.tflite"), "m")


# Files as they were made years ago


@needs_tflm
@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_other_types_of_input_and_output(io: Any, tmp_path: Path, tflm: Tflm) -> None:
    """uint8 is taken as it is; float ends are cut off, and what is left equals the int8 file."""
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 2))
    model = lively(keras.Model(images, L.Dense(3)(L.Flatten()(plain(images)))))
    samples = np.random.default_rng(0).random((8, 8, 8, 2), np.float32)
    files = {kind: tflite.convert(Source(model, None, samples, kind, 1), SCHEMES["int8"]) for kind in (io, "int8")}
    generate(files[io], tmp_path)
    if io == "float32":
        twin = files["int8"]
        inputs = random_inputs(twin, 20)
        np.testing.assert_array_equal(run(compiled(tmp_path), twin, inputs), tflm(twin, inputs))
    else:
        inputs = random_inputs(files[io], 20)
        np.testing.assert_array_equal(run(compiled(tmp_path), files[io], inputs), tflm(files[io], inputs))


@needs_tflm
def test_an_autoencoder_of_dense_layers_per_tensor(tmp_path: Path, tflm: Tflm) -> None:
    """Weights with one scale, no bias in places, no softmax, relu6."""
    random, model = np.random.default_rng(0), Model()
    scale = 0.05
    first = now = model.tensor((1, 40), scale=scale, zero=3)
    for taps, outputs, activation in ((40, 17, 3), (17, 4, 1), (4, 40, 0)):
        weights = model.tensor((outputs, taps), scale=0.011, data=random.integers(-127, 128, (outputs, taps)))
        bias = -1
        if activation:
            values = random.integers(-900, 900, outputs)
            bias = model.tensor((outputs,), "int32", scale=scale * 0.011, data=values)
        scale *= 1.7
        made = model.tensor((1, outputs), scale=scale, zero=-100 if activation else 5)
        model.operator(
            "FULLY_CONNECTED", [now, weights, bias], made, "FullyConnectedOptions", fusedActivationFunction=activation
        )
        now = made
    content = model.file(first, now)
    images = random_inputs(content, 200)
    generate(content, tmp_path)
    np.testing.assert_array_equal(run(compiled(tmp_path), content, images), tflm(content, images))


def test_a_model_that_only_reshapes_copies(tmp_path: Path) -> None:
    model = Model()
    first, second = model.tensor((1, 6), scale=0.5), model.tensor((1, 2, 3), scale=0.5)
    shape = model.tensor((3,), "int32", data=[1, 2, 3])
    model.operator("RESHAPE", [first, shape], second, "ReshapeOptions", newShape=[1, 2, 3])
    content = model.file(first, second)
    images = random_inputs(content, 3)
    generate(content, tmp_path)
    np.testing.assert_array_equal(run(compiled(tmp_path), content, images).reshape(3, 1, 6), images)


# As a format and a runtime


def test_exported_code_is_an_artifact_with_its_header(workspace: Any) -> None:
    artifact = workspace.artifacts["c99", "int8"]
    path = workspace.path("c99", "int8")
    assert (artifact.file, artifact.format) == ("digits-int8.c", "c")
    assert [companion.file for companion in artifact.companions] == ["digits-int8.h"]
    assert artifact.memory is not None
    assert artifact.memory.arena_bytes == ARENAS["mnist_cnn"]
    assert artifacts.load(path) == artifact
    twin = workspace.artifacts["tflite", "int8"]
    assert artifact.input.quantization == twin.input.quantization
    assert "void digits_int8_invoke(const int8_t *input, int8_t *output);" in path.with_suffix(".h").read_text()


def copied(workspace: Any, folder: Path) -> Path:
    path: Path = workspace.path("c99", "int8")
    for file in (path, path.with_suffix(".h"), artifacts.sidecar(path)):
        shutil.copy(file, folder)
    return folder / path.name


def test_a_header_that_was_changed_or_is_missing_is_noticed(workspace: Any, tmp_path: Path) -> None:
    path = copied(workspace, tmp_path)
    header = path.with_suffix(".h")
    header.write_text(header.read_text().replace("INPUT_ZERO_POINT -128", "INPUT_ZERO_POINT 0"))
    with pytest.raises(ArtifactError, match=r"digits-int8\.h has changed since it was exported"):
        artifacts.load(path)
    header.unlink()
    with pytest.raises(ArtifactError, match=r"digits-int8\.h is missing, but listed in the sidecar"):
        artifacts.load(path)
    artifacts.sidecar(path).unlink()
    with pytest.raises(ArtifactError, match=r"needs its header digits-int8\.h, which is missing"):
        artifacts.load(path)


def test_the_session_gives_what_the_tflite_gives(workspace: Any) -> None:
    images = workspace.data.inputs(workspace.data.test.images[:100])
    outputs = []
    for format in ("c99", "tflite"):
        with contextlib.closing(open_session(workspace.path(format, "int8"))) as session:
            outputs.append(predict(session, images))
    assert np.abs(outputs[0] - outputs[1]).max() <= 3 / 256
    assert (outputs[0].argmax(axis=1) == outputs[1].argmax(axis=1)).mean() > 0.97


def test_what_does_not_compile_is_said_with_the_compilers_words(workspace: Any, tmp_path: Path) -> None:
    path = copied(workspace, tmp_path)
    path.write_text(path.read_text() + "\nint broken(void) { return nothing; }\n")
    with pytest.raises(SessionError, match=r"digits-int8\.c does not compile: .*error: .*nothing"):
        open_session(path)


def test_without_a_compiler_the_way_to_one_is_told(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(SessionError, match="needs a C compiler, but 'no-such-compiler' is not installed; install one"):
        open_session(workspace.path("c99", "int8"))


def test_c_code_of_others_is_no_artifact(tmp_path: Path) -> None:
    path = tmp_path / "other.c"
    path.write_text("int main(void) { return 0; }\n")
    with pytest.raises(ArtifactError, match=r"other\.c was not generated by edgecnn"):
        open_session(path)


def test_only_static_int8_makes_sense(workspace: Any) -> None:
    provenance = provenance_of("digits", "0" * 64, workspace.data)
    images = workspace.data.inputs(workspace.data.train.images[:5])
    for scheme in ("float32", "int16x8"):
        with pytest.raises(UnsupportedError, match="C is exported with the schemes int8 and int8-qat only"):
            export_file(
                Source(workspace.model, None, images, "int8", 1),
                format=FORMATS["c99"],
                scheme=SCHEMES[scheme],
                provenance=provenance,
                folder=workspace.folder / "never",
            )
    every = pairs([*FORMATS.values()], [*SCHEMES.values()])
    assert [scheme.name for format, scheme in every if format.name == "c99"] == ["int8", "int8-qat"]
    assert len(pairs([FORMATS["c99"]], [SCHEMES["float32"]])) == 1, "asked for by name, it is tried and explained"
