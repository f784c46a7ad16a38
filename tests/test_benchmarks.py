"""Suites parse, committed results are reports, and no number in a table is typed by hand."""

import re
import shutil
import subprocess
import sys
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import tools
from emulated import need

from benchmarks import (
    against_others,
    clients,
    int8_onnx,
    memory,
    microcontroller,
    ptq_methods,
    qat_backends,
    qat_engines,
    registry,
    stack,
    web,
)
from benchmarks.client_programs import in_chromium
from benchmarks.suite import read_suite
from edgecnn.config import read_config
from edgecnn.data.demo import DEMOS
from edgecnn.errors import ConfigError, RecordError
from edgecnn.formats import FORMATS, pairs
from edgecnn.measure.comparison import credits_of, paired_interval
from edgecnn.models import MODELS
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Failure, Measurement, Parity, Report, Result, from_json, read_record, to_json
from edgecnn.report import read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
IMAGE_CLASSIFIERS = tuple(name for name in MODELS if name not in DEMOS)
SUITES = sorted((ROOT / "benchmarks" / "suites").glob("*.toml"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
INT8_ONNX = ROOT / "benchmarks" / "results" / "int8-onnx.json"
MICROCONTROLLER = ROOT / "benchmarks" / "results" / "microcontroller.json"


def benchmarks(*arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what ``python -m benchmarks table`` reads and writes."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    for page in ("README.md", "SECURITY.md"):
        shutil.copy(ROOT / page, tmp_path)
    (tmp_path / "docs").mkdir()
    for page in ("clients.md", "c99.md"):
        shutil.copy(ROOT / "docs" / page, tmp_path / "docs")
    return tmp_path


def test_there_is_a_result_for_each_suite() -> None:
    assert "mnist" in [path.stem for path in SUITES]
    assert [path.stem for path in RESULTS] == list(registry.SUITES)
    assert [path.stem for path in SUITES] == [suite.name for suite in registry.SUITES.values() if suite.run]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_parse(path: Path) -> None:
    kinds = {
        "against-others": against_others.Settings,
        "int8-onnx": int8_onnx.Settings,
        "memory": memory.Settings,
        "microcontroller": microcontroller.Settings,
        "clients": clients.Settings,
        "ptq-methods": ptq_methods.Settings,
        "qat-engines": qat_engines.Settings,
        "stack": stack.Settings,
        "web": web.Settings,
    }
    known = ptq_methods.NETS if path.stem == "ptq-methods" else MODELS
    assert read_suite(path, kinds[path.stem], known) if path.stem in kinds else read_config(path)


def test_the_engine_keras_is_not_below_tfmot() -> None:
    engines = read_record(registry.SUITES["qat-engines"].file, qat_engines.Engines)
    for model in qat_engines.models_of(engines):
        ours, theirs = (credits_of(qat_engines.row_of(engines, model, name).answers) for name in ("keras", "tfmot"))
        low, high = paired_interval(int((ours > theirs).sum()), int((theirs > ours).sum()), len(ours))
        assert high >= 0, model
        middle, _, slowest = qat_engines.slowdown(
            qat_engines.row_of(engines, model, "keras").seconds, qat_engines.row_of(engines, model, "float").seconds
        )
        assert middle < 1.3, f"{model}: a step takes {middle} times one in float (up to {slowest})"
        assert low < high


def test_c_in_a_browser_is_at_most_three_times_slower() -> None:
    suite = registry.SUITES["web"]
    settings, found = read_suite(suite.settings, web.Settings), read_record(suite.file, web.Browser)
    assert {(row.model, row.way) for row in found.rows} == {
        (model, way) for model in settings.models for way in (web.NATIVE, web.WASM, *web.OTHERS)
    }
    for row in found.rows:
        assert [len(block) for block in row.measurement.blocks_ns] == [settings.runs] * settings.rounds
    for model in settings.models:
        assert web.slowdown(found, model).value <= web.LIMIT, model
    assert found.resolution_s <= 10e-6, "the pages were cross-origin isolated"


def test_a_page_is_timed_only_with_the_fine_timer(tmp_path: Path) -> None:
    tools.need("chromium")
    given = "async function open() { return (sample) => sample; }", web._TIME % (1, 3), b"", np.ones((1, 4), np.uint8)
    with pytest.raises(ValueError, match="the page is not cross-origin isolated"):
        in_chromium(*given, tmp_path)
    found = in_chromium(*given, tmp_path, web._ISOLATED)
    assert (len(found["times"]), found["output"]) == (3, [1, 1, 1, 1])
    assert found["resolution"] <= 0.01


def test_post_training_quantisation_saves_what_plain_int8_loses() -> None:
    found = read_record(registry.SUITES["ptq-methods"].file, ptq_methods.Methods)
    assert [row.model for row in found.rows] == list(ptq_methods.NETS)
    for row in found.rows:
        for plain in (row.converter, row.extremes):
            assert credits_of(row.float32).mean() - credits_of(plain).mean() >= ptq_methods.LEAST_GAP, row.model
            saved, low, high = ptq_methods.share(row, plain, found.seed)
            assert saved >= ptq_methods.LEAST_SHARE, row.model
            assert low < saved < high


def test_what_is_trained_on_any_back_end_is_exported_as_it_is() -> None:
    result = read_record(registry.SUITES["qat-backends"].file, qat_backends.OnBackends)
    assert {row.trained.backend for row in result.rows} == {"jax", "tensorflow", "torch"}
    for row in result.rows:
        assert row.exported.violations == ()
        floats, trained = (credits_of(one).mean() for one in (row.trained.float_answers, row.trained.answers))
        assert trained > floats - 0.01, row.trained.model


def test_unknown_key_in_a_suite_is_an_error(checkout: Path) -> None:
    suite = checkout / "benchmarks" / "suites" / "mnist.toml"
    suite.write_text(suite.read_text(encoding="utf-8") + "second = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown field `second`"):
        read_config(suite)
    ended = benchmarks("run", "mnist", cwd=checkout)
    assert ended.returncode == 2
    assert ended.stderr.startswith("benchmarks: ")
    assert "unknown field `second`" in ended.stderr


def test_unknown_suite_is_an_error() -> None:
    ended = benchmarks("run", "minst")
    assert ended.returncode == 2
    assert ended.stderr == (
        "benchmarks: unknown suite 'minst'; choose from: against-others, clients, int8-onnx, memory, microcontroller, "
        "mnist, ptq-methods, qat-engines, stack, web\n"
    )


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in RESULTS
        if registry.SUITES[path.stem].result is Report and path.stem not in ("against-others", "int8-onnx")
    ],
    ids=lambda path: path.stem,
)
def test_results_are_reports_of_their_suite(path: Path) -> None:
    report, suite = read(path), read_config(path.parents[1] / "suites" / f"{path.stem}.toml")
    assert report.title == f"{suite.model} on {suite.data}"
    assert report.seed == suite.seed
    measured = {
        (row.artifact.scheme, row.artifact.format, row.measurement.threads)
        for row in report.rows
        if isinstance(row, Result)
    }
    for threads in suite.threads:
        for format, scheme in pairs(
            [*map(FORMATS.__getitem__, suite.formats)], [*map(SCHEMES.__getitem__, suite.schemes)]
        ):
            if (scheme.name, format.name) != ("int16x8", "onnx"):  # ONNX Runtime has no such kernels
                assert (scheme.name, format.ending, threads) in measured
    assert all(parity.violations == () for parity in report.parities)


def test_committed_tables_are_up_to_date() -> None:
    checked = benchmarks("table", "--check")
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_number_changed_by_hand_is_found_and_made_anew(page: str, checkout: Path) -> None:
    path = checkout / page
    if page == "README.md":
        path.write_text("Before\n\n<!-- table:mnist -->\n<!-- /table:mnist -->\n\nAfter\n", encoding="utf-8")
        assert benchmarks("table", cwd=checkout).returncode == 0
    right = path.read_text(encoding="utf-8")
    wrong, changes = re.subn(r"(?<=\| mnist_cnn-int8\.tflite \| litert \| )[\d.]+", "1.5", right)
    assert changes == 1
    path.write_text(wrong, encoding="utf-8")

    checked = benchmarks("table", "--check", cwd=checkout)
    assert (checked.returncode, checked.stdout) == (1, f"{path} is out of date; run: python -m benchmarks table\n")
    assert path.read_text(encoding="utf-8") == wrong

    assert benchmarks("table", cwd=checkout).returncode == 0
    assert path.read_text(encoding="utf-8") == right
    assert benchmarks("table", "--check", cwd=checkout).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:mnist -->\n", "has <!-- table:mnist --> without its counterpart"),
        ("<!-- /table:mnist -->\n", "has <!-- /table:mnist --> without its counterpart"),
        ("<!-- table:mnist -->\n<!-- /table:cifar -->\n", "has <!-- table:mnist --> without its counterpart"),
        (
            "<!-- table:cifar -->\n<!-- /table:cifar -->\n",
            "refers to an unknown table cifar; choose from: against-others, clients, fuzzing",
        ),
    ],
)
def test_markers_that_cannot_be_served(text: str, message: str, checkout: Path) -> None:
    page = checkout / "README.md"
    page.write_text(text, encoding="utf-8")
    ended = benchmarks("table", cwd=checkout)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"benchmarks: {page} {message}")
    assert page.read_text(encoding="utf-8") == text


def test_table_shows_doubts_beside_the_number(checkout: Path) -> None:
    """A row whose measurement has warnings carries the mark of a note that says so."""
    result = checkout / "benchmarks" / "results" / "mnist.json"
    report = read(result)

    def first_two(measured: Measurement) -> Measurement:
        return measured.replace(
            blocks_ns=measured.blocks_ns[:2], end_to_end_ns=measured.end_to_end_ns[:2], blocks_per_process=(2,)
        )

    few = tuple(
        row.replace(measurement=first_two(row.measurement)) if isinstance(row, Result) else row for row in report.rows
    )
    result.write_bytes(to_json(report.replace(rows=few)))
    assert benchmarks("table", cwd=checkout).returncode == 0
    text = (checkout / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert "only 2 blocks, fewer than 10: do not trust the interval" in text


# int8-onnx


@pytest.fixture(scope="module")
def int8_report() -> Report:
    return read(INT8_ONNX)


def replaced(report: Report, file: str, row: Result | Failure | None) -> Report:
    """``report`` with another row for ``file``, or none."""
    rows = [row if isinstance(old, Result) and old.artifact.file == file else old for old in report.rows]
    changed = report.replace(rows=tuple(new for new in rows if new is not None))
    assert changed != report
    return changed


def slowed(report: Report, file: str, factor: float) -> Report:
    (old,) = (row for row in report.rows if isinstance(row, Result) and row.artifact.file == file)
    blocks = tuple(tuple(round(sample * factor) for sample in block) for block in old.measurement.blocks_ns)
    return replaced(report, file, old.replace(measurement=old.measurement.replace(blocks_ns=blocks)))


def test_int8_result_is_of_its_suite(int8_report: Report) -> None:
    suite = read_suite(ROOT / "benchmarks" / "suites" / "int8-onnx.toml", int8_onnx.Settings)
    assert suite.blocks >= 30
    assert int8_onnx.models_of(int8_report) == suite.models == IMAGE_CLASSIFIERS
    assert len(int8_report.rows) == len(suite.models) * len(int8_onnx.COLUMNS)
    for model in suite.models:
        for ending in int8_onnx.COLUMNS:
            row = int8_onnx.row_of(int8_report, model, ending)
            if ending in (int8_onnx.TF2ONNX, int8_onnx.STATIC) and isinstance(row, Failure):
                assert row.reason  # another tool's, which may refuse a model
                continue
            assert isinstance(row, Result)
            measured = row.measurement
            assert (len(measured.blocks_ns), measured.threads, measured.batch) == (suite.blocks, 1, 1)
            assert measured.runtime == ("litert" if ending.endswith("tflite") else "onnxruntime")
            assert measured.artifact_sha256 == row.artifact.sha256
            tuned = row.artifact.provenance is not None and row.artifact.provenance.tuning is not None
            assert tuned == (ending == int8_onnx.TUNED)


def test_int8_result_meets_the_limits(int8_report: Report) -> None:
    """From the samples, without the code that makes the table."""
    rows = {row.artifact.file: row for row in int8_report.rows if isinstance(row, Result)}
    ratios = {}
    for model in IMAGE_CLASSIFIERS:
        tuned, reference = (rows[f"{model}{kind}.onnx"].measurement for kind in ("-int8-qat-tuned", "-float32"))
        pairs = zip(tuned.blocks_ns, reference.blocks_ns, strict=True)
        ratios[model] = median(median(one) / median(other) for one, other in pairs)
        untuned, tflite = (rows[f"{model}-int8-qat.{ending}"].artifact.size_bytes for ending in ("onnx", "tflite"))
        assert untuned <= 1.08 * tflite
        assert rows[f"{model}-int8-qat-tuned.onnx"].artifact.size_bytes <= (
            0.5 * rows[f"{model}-float32.onnx"].artifact.size_bytes
        )
    assert ratios["mnist_cnn"] <= 0.62
    assert max(ratios.values()) <= 1.0
    mean = prod(ratios.values()) ** (1 / len(ratios))
    assert mean <= 0.72
    answers = {parity.artifact: parity for parity in int8_report.parities}
    untuned, tuned = (answers[f"mnist_cnn-int8-qat{kind}.onnx"] for kind in ("", "-tuned"))
    assert untuned.difference.images == 10_000
    assert untuned.difference.agree >= 9_990
    assert (untuned.difference.within_one_lsb or 0) >= 0.999
    assert abs(tuned.accuracy.correct - tuned.reference_accuracy.correct) <= 5
    assert int8_onnx.geometric_mean(int8_report) == pytest.approx(mean)
    assert int8_onnx.missed(int8_report) == ()
    assert "All are met." in int8_onnx.table(int8_report, "x")


def test_missed_bars_are_named(int8_report: Report) -> None:
    slow = slowed(int8_report, "mnist_cnn-int8-qat-tuned.onnx", 4)
    first, *_, last = int8_onnx.missed(slow)
    assert re.fullmatch(r"mnist_cnn: time of tuned ÷ float32 is [\d.]+, limit 0.62", first)
    assert last.startswith("geometric mean of the time of tuned ÷ float32 is")
    assert f"Missed: {first}; {last}." in int8_onnx.table(slow, "x")
    assert int8_onnx.missed(slowed(int8_report, "ds_cnn-float32.onnx", 0.5))[0].startswith("ds_cnn: time of")


def test_answers_that_differ_are_named(int8_report: Report) -> None:
    def worse(parity: Parity) -> Parity:
        apart = parity.difference
        less = parity.accuracy.replace(correct=parity.reference_accuracy.correct - 6)
        return parity.replace(
            accuracy=less, difference=apart.replace(agree=min(9_989, apart.images), within_one_lsb=0.998)
        )

    report = int8_report.replace(parities=tuple(map(worse, int8_report.parities)))
    assert [reason.partition(" is ")[0] for reason in int8_onnx.missed(report)] == [
        "untuned: share of images with another top class",
        "untuned: share of outputs further than 1 LSB",
        "tuned: difference in accuracy",
    ]


def test_what_another_tool_cannot_make_is_a_note(int8_report: Report) -> None:
    refused = Failure(subject="ds_cnn-int8-qat-tf2onnx.onnx", stage="convert", error="KeyError", reason="no such op")
    text = int8_onnx.table(replaced(int8_report, refused.subject, refused), "x")
    mark = re.search(r"- \((\w+)\) convert: KeyError: no such op", text)
    assert mark is not None
    assert f"| — ({mark[1]}) |" in text


def test_an_own_file_that_is_missing_is_an_error(int8_report: Report) -> None:
    with pytest.raises(RecordError, match=r"has no row for ds_cnn-int8-qat-tuned\.onnx; run: python -m benchmarks run"):
        int8_onnx.table(replaced(int8_report, "ds_cnn-int8-qat-tuned.onnx", None), "x")
    crashed = Failure(subject="ds_cnn-int8-qat.onnx, threads 1", stage="bench", error="OSError", reason="gone")
    with pytest.raises(RecordError, match=r"has no measurement of ds_cnn-int8-qat\.onnx, threads 1: gone"):
        int8_onnx.to_float(replaced(int8_report, "ds_cnn-int8-qat.onnx", crashed), "ds_cnn", int8_onnx.UNTUNED)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"ds_cnn"', '"vgg"', "unknown model 'vgg'; choose from: autoencoder, ds_cnn, mnist_cnn"),
        ("blocks =", "block =", "unknown field `block`; the keys are: models, seed"),
        ("seed = 0", 'seed = "x"', "Expected `int`, got `str`"),
    ],
)
def test_int8_suites_that_cannot_be_used(old: str, new: str, message: str, checkout: Path) -> None:
    suite = checkout / "benchmarks" / "suites" / "int8-onnx.toml"
    text = suite.read_text(encoding="utf-8")
    assert old in text
    suite.write_text(text.replace(old, new), encoding="utf-8")
    ended = benchmarks("run", "int8-onnx", cwd=checkout)
    assert ended.returncode == 2
    assert re.search(rf"^benchmarks: .*{re.escape(message)}", ended.stderr), ended.stderr


def test_int8_number_changed_by_hand_is_found(checkout: Path) -> None:
    path = checkout / "benchmarks" / "README.md"
    right = path.read_text(encoding="utf-8")
    wrong, changes = re.subn(r"(?<=over 5 models: \*\*)[\d.]+", "0.1", right)
    assert changes == 1
    path.write_text(wrong, encoding="utf-8")
    assert benchmarks("table", "--check", cwd=checkout).returncode == 1
    assert benchmarks("table", cwd=checkout).returncode == 0
    assert path.read_text(encoding="utf-8") == right


@pytest.mark.slow
def test_a_small_int8_suite_runs(tmp_path: Path) -> None:
    """One model, briefly: every file is made, measured, and in the table."""
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'models = ["ds_cnn"]\nseed = 1\nimages = 4\ntrain_images = 200\nepochs = 1\ntest_images = 50\n'
        "tune_seconds = 0.5\nseconds = 0.05\nblocks = 3\n",
        encoding="utf-8",
    )
    report = int8_onnx.run(suite, tmp_path / "out")
    refused = [row.subject for row in report.rows if isinstance(row, Failure)]
    assert set(refused) <= {f"ds_cnn{int8_onnx.TF2ONNX}"}  # on x86 without VNNI ONNX Runtime refuses this file
    assert [row.artifact.file for row in report.rows if isinstance(row, Result)] == [
        f"ds_cnn{ending}" for ending in int8_onnx.COLUMNS if f"ds_cnn{ending}" not in refused
    ]
    assert int8_onnx.table(report, "x").count("\n| ds_cnn |") == 4


# memory


def test_memory_result_meets_the_limits() -> None:
    """With the numbers written here again, apart from the code that makes the table."""
    plans = read_record(registry.SUITES["memory"].file, memory.Plans)
    suite = read_suite(ROOT / "benchmarks" / "suites" / "memory.toml", memory.Settings)
    assert tuple(dict.fromkeys(row.model for row in plans.rows)) == suite.models
    for model, arena in (("mobilenet_v1_025", 25 * 1024), ("resnet8", 20 * 1024)):
        rows = [row for row in plans.rows if row.model == model]
        most = 1.15 * rows[0].instructions["cortex-m4"]
        assert rows[0].operators == 0
        assert any(row.arena <= arena and row.instructions["cortex-m4"] <= most for row in rows), model
    for row in plans.rows:
        assert row.wrong_bytes == dict.fromkeys(suite.targets, 0)
        assert row.slower == pytest.approx(memory.more(plans, row, "cortex-m4"), rel=0.5, abs=0.01)
    assert memory.missed(plans) == ()
    assert "All limits are met" in memory.table(plans, "x")


def test_missed_memory_limits_are_named() -> None:
    plans = read_record(registry.SUITES["memory"].file, memory.Plans)
    large = tuple(row.replace(arena=30_000) if row.model == "resnet8" else row for row in plans.rows)
    wrong = (large[0].replace(wrong_bytes={"cortex-m4": 1}), *large[1:])
    assert memory.missed(plans.replace(rows=wrong)) == (
        "resnet8: no plan of 20,480 bytes with at most 15% more instructions",
        "mnist_cnn: wrong bytes",
    )


# microcontroller


@pytest.fixture(scope="module")
def counts() -> microcontroller.Counts:
    return from_json(MICROCONTROLLER.read_bytes(), microcontroller.Counts, MICROCONTROLLER)


def with_row(counts: microcontroller.Counts, model: str, target: str, **changes: int) -> microcontroller.Counts:
    """``counts`` with another row for ``model`` on ``target`` with -O2."""
    rows = tuple(
        row.replace(**changes) if (row.model, row.target, row.level) == (model, target, "-O2") else row
        for row in counts.rows
    )
    assert rows != counts.rows
    return counts.replace(rows=rows)


def test_microcontroller_result_is_of_its_suite(counts: microcontroller.Counts) -> None:
    suite = read_suite(ROOT / "benchmarks" / "suites" / "microcontroller.toml", microcontroller.Settings)
    wanted = [(model, target, level) for model in suite.models for target in suite.targets for level in suite.levels]
    assert [(row.model, row.target, row.level) for row in counts.rows] == wanted
    assert suite.test_images >= 100
    for row in counts.rows:
        assert row.images == suite.test_images
        assert sum(row.functions.values()) == row.instructions
        assert row.ram >= row.arena
    assert set(counts.tools) == {"arm-none-eabi-gcc", "qemu-system-arm"}


def test_microcontroller_result_meets_the_limits(counts: microcontroller.Counts) -> None:
    """With the numbers written here again, apart from the code that makes the table."""
    rows = {(row.model, row.target): row for row in counts.rows if row.level == "-O2"}
    for model, instructions, code, arena in (
        ("mnist_cnn", 4.6e6, 6144, 27_100),
        ("ds_cnn", 7.0e6, 8192, 16_300),
        ("resnet8", 22e6, 8192, 49_800),
        ("mobilenet_v1_025", 22e6, 8192, 64_600),
    ):
        row = rows[model, "cortex-m4"]
        assert row.instructions <= instructions
        assert row.code <= code
        assert row.arena <= arena
    assert rows["mnist_cnn", "cortex-m55"].instructions < 1.26e6
    assert rows["ds_cnn", "cortex-m55"].instructions < 1.81e6
    assert all(row.wrong_bytes == 0 for row in counts.rows)
    assert microcontroller.missed(counts) == ()
    text = microcontroller.table(counts, "x")
    assert (
        "Every output byte equals TFLite Micro's, on 100 images for each target and level. All limits are met." in text
    )


@pytest.mark.parametrize(
    ("model", "target", "changes", "message"),
    [
        (
            "ds_cnn",
            "cortex-m4",
            {"instructions": 7_000_001},
            "ds_cnn: 7,000,001 instructions on cortex-m4, limit 7,0",
        ),
        ("ds_cnn", "cortex-m55", {"instructions": 1_810_001}, "ds_cnn: 1,810,001 instructions on cortex-m55, limit"),
        ("mnist_cnn", "cortex-m4", {"code": 6145}, "mnist_cnn: 6,145 bytes of code on cortex-m4, limit 6,144"),
        ("resnet8", "cortex-m4", {"arena": 49_801}, "resnet8: 49,801 bytes of arena, limit 49,800"),
        ("resnet8", "cortex-m55", {"wrong_bytes": 3}, "resnet8 on cortex-m55 with -O2: 3 output bytes differ from"),
    ],
)
def test_missed_microcontroller_limits_are_named(
    model: str, target: str, changes: dict[str, int], message: str, counts: microcontroller.Counts
) -> None:
    worse = with_row(counts, model, target, **changes)
    (sentence,) = microcontroller.missed(worse)
    assert sentence.startswith(message)
    text = microcontroller.table(worse, "x")
    assert f"Missed: {sentence}." in text
    assert ("Every output byte" in text) == ("wrong_bytes" not in changes)


def test_reference_figures_are_told_apart_from_what_was_counted(counts: microcontroller.Counts) -> None:
    text = microcontroller.table(counts, "x")
    assert "reference figures, counted elsewhere and not by this suite" in text
    assert "are not timings" in text


def test_a_missing_microcontroller_row_is_an_error(counts: microcontroller.Counts) -> None:
    with pytest.raises(
        RecordError, match=r"no row for ds_cnn on cortex-m4 with -O2; run: python -m benchmarks run mic"
    ):
        microcontroller.table(
            counts.replace(rows=tuple(r for r in counts.rows if (r.model, r.level) != ("ds_cnn", "-O2"))), "x"
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"ds_cnn"', '"vgg"', "unknown model 'vgg'; choose from: autoencoder, ds_cnn, mnist_cnn"),
        ('"cortex-m55"', '"cortex-m99"', "unknown target 'cortex-m99'; choose from: aarch64"),
        ('"-Os"', '"-O9"', "unknown level '-O9'; choose from: -O2, -O3, -Os"),
        ("images =", "image =", "unknown field `image`; the keys are: models, seed, images, targets"),
    ],
)
def test_microcontroller_suites_that_cannot_be_used(old: str, new: str, message: str, checkout: Path) -> None:
    suite = checkout / "benchmarks" / "suites" / "microcontroller.toml"
    suite.write_text(suite.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)):
        microcontroller.run(suite, checkout / "out")


@pytest.mark.slow
def test_a_small_microcontroller_suite_runs(tmp_path: Path) -> None:
    """One model, trained on next to nothing: converted, counted, compared, and in the table."""
    need("cortex-m4")
    need("cortex-m55")
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'models = ["ds_cnn"]\ntargets = ["cortex-m4", "cortex-m55"]\nlevels = ["-O2"]\nseed = 1\nimages = 4\n'
        "train_images = 64\nepochs = 1\ntest_images = 3\n",
        encoding="utf-8",
    )
    counts = microcontroller.run(suite, tmp_path / "out")
    assert [(row.target, row.wrong_bytes, row.images) for row in counts.rows] == [
        ("cortex-m4", 0, 3),
        ("cortex-m55", 0, 3),
    ]
    assert "| ds_cnn |" in microcontroller.table(counts, "x")
    assert (tmp_path / "out" / "ds_cnn-int8.tflite").is_file()


# stack


def test_stack_result_is_of_its_suite() -> None:
    suite = read_suite(ROOT / "benchmarks" / "suites" / "stack.toml", stack.Settings)
    path = ROOT / "benchmarks" / "results" / "stack.json"
    stacks = read_record(path, stack.Stacks)
    assert [(row.model, row.target) for row in stacks.rows] == [(m, t) for m in suite.models for t in suite.targets]
    sizes = [row.stack for row in stacks.rows if row.stack is not None]
    assert all(50 <= size < 1024 for size in sizes)
    assert {row.target for row in stacks.rows if row.stack is None} <= {"cortex-m0plus"}
    table = stack.table(stacks, "x")
    assert [line.count(" — ") for line in table.splitlines() if line.startswith("| mnist_cnn")] == [1]


@pytest.mark.slow
def test_a_small_stack_suite_runs(tmp_path: Path) -> None:
    need("cortex-m0plus")
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'models = ["motion_cnn", "mnist_cnn"]\ntargets = ["cortex-m0plus"]\nlevel = "-Os"\nseed = 1\nimages = 1\n'
    )
    small, large = stack.run(suite, tmp_path / "out").rows
    assert small.stack is not None
    assert small.stack > 100
    assert large.stack is None
