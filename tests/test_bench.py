"""The bench package: schedule, workers, statistics, environment and the float baseline."""

import gc
import getpass
import math
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.random import Generator
from times import in_ns
from tools import workers

from edgecnn import environment
from edgecnn.data import load
from edgecnn.errors import BenchError, ConfigError, RecordError, SessionError
from edgecnn.files import sha256_file
from edgecnn.measure import Candidate, Interrupted, Timeouts, bench, counters, statistics
from edgecnn.measure.baseline import load_baseline, record_baseline
from edgecnn.measure.modes import two_modes
from edgecnn.measure.schedule import rounds
from edgecnn.measure.timing import time_calls
from edgecnn.measure.workbench import Warmth, Workbench
from edgecnn.processor import parse_cpuinfo
from edgecnn.records import (
    Accuracy,
    Artifact,
    BenchResults,
    Energy,
    Estimate,
    Failure,
    Measurement,
    Result,
    TensorSpec,
    from_json,
    to_json,
)
from edgecnn.runtimes import open_session, predict
from edgecnn.runtimes.fake import FakeModel
from edgecnn.worker import Worker, WorkerError, out_of_memory_kills

Blocks = tuple[tuple[float, ...], ...]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_converter")]

IMAGE = np.zeros((4, 4, 1), np.float32)
SPEC = TensorSpec(name="x", shape=(None, 4, 4, 1), dtype="float32", layout="NHWC")


def candidate_of(path: Path, **how: Any) -> Candidate:
    artifact = Artifact(
        file=path.name,
        format=path.suffix[1:],
        scheme="float32",
        input=SPEC,
        output=SPEC,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
    )
    return Candidate(path=path, artifact=artifact, **how)


def fake_file(path: Path, **model: Any) -> Path:
    path.write_bytes(to_json(FakeModel(**{"input_shape": (4, 4, 1), "classes": 3, "delay_s": 0.001} | model)))
    return path


def fake(path: Path, **model: Any) -> Candidate:
    return candidate_of(fake_file(path, **model))


def measurement_of(*blocks: tuple[float, ...], batch: int = 1, **fields: Any) -> Measurement:
    return Measurement(
        artifact="a.fake",
        artifact_sha256="0",
        runtime="fake",
        device="cpu",
        threads=1,
        batch=batch,
        load_s=0.0,
        warmup_ns=(),
        blocks_ns=in_ns(blocks),
        **fields,
    )


@pytest.fixture
def no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fails the test if a worker process or a temporary file is left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = workers(os.getpid())
    yield
    assert workers(os.getpid()) == []
    assert set(workers(os.getpid())) <= set(before)
    assert list(temporary.iterdir()) == []


# ---- schedule


def test_schedule_is_the_same_for_a_seed_and_another_for_another() -> None:
    assert rounds(5, 20, seed=7) == rounds(5, 20, seed=7)
    assert rounds(5, 20, seed=7) != rounds(5, 20, seed=8)


def test_every_round_of_the_schedule_visits_all_candidates_in_varying_order() -> None:
    schedule = rounds(4, 50, seed=0)
    assert len(schedule) == 50
    assert all(sorted(order) == [0, 1, 2, 3] for order in schedule)
    assert len(set(schedule)) > 10


# ---- fake runtime


def test_fake_classifies_by_the_sum_of_the_image(tmp_path: Path) -> None:
    session = open_session(fake_file(tmp_path / "a.fake"), batch=2)
    images = np.zeros((3, 4, 4, 1), np.float32)
    images[1, 0, 0] = 1
    images[2, 0, 0] = 5
    assert predict(session, images).argmax(axis=1).tolist() == [0, 1, 2]


def test_fake_refuses_other_devices_and_shapes(tmp_path: Path) -> None:
    path = fake_file(tmp_path / "a.fake")
    with pytest.raises(SessionError, match="no device 'gpu'; use cpu"):
        open_session(path, device="gpu")
    with pytest.raises(SessionError, match=r"\(1, 4, 4, 1\), got \(1, 5, 5, 1\)"):
        open_session(path).encode(np.zeros((1, 5, 5, 1), np.float32))


# ---- bench


@pytest.mark.usefixtures("no_leftovers")
def test_bench_keeps_every_sample_in_the_order_of_the_candidates(tmp_path: Path) -> None:
    candidates = [
        fake(tmp_path / "slow.fake", delay_s=0.004),
        fake(tmp_path / "quick.fake", delay_s=0.002),
        fake(tmp_path / "instant.fake", delay_s=0.0),
    ]
    results = bench(candidates, image=IMAGE, seconds=0.4, blocks=10, processes=2, seed=3)
    assert [row.artifact.file for row in results.rows if isinstance(row, Result)] == [
        "slow.fake",
        "quick.fake",
        "instant.fake",
    ]
    slow, quick, instant = (row.measurement for row in results.rows if isinstance(row, Result))
    for measurement in (slow, quick, instant):
        assert (measurement.runtime, measurement.device) == ("fake", "cpu")
        assert measurement.load_s > 0
        assert len(measurement.blocks_ns) == 10
        (count,) = {len(block) for block in measurement.blocks_ns}
        assert 1 <= count <= 200
        assert len(measurement.samples_s) == 10 * count
        assert len(measurement.warmup_ns) >= 10 + 10 * max(1, count // 10)
    assert min(*slow.samples_s, min(slow.warmup_ns) / 1e9) >= 0.004
    assert min(*quick.samples_s, min(quick.warmup_ns) / 1e9) >= 0.002
    assert {len(block) for block in instant.blocks_ns} == {200}
    assert 1.2 < statistics.ratio(slow, quick).value < 4
    assert results.seed == 3
    assert from_json(to_json(results), BenchResults, "results") == results


@pytest.mark.usefixtures("no_leftovers")
def test_every_candidate_has_several_processes_with_a_cold_start_each(tmp_path: Path) -> None:
    candidates = [fake(tmp_path / "a.fake"), fake(tmp_path / "b.fake", delay_s=0.002)]
    results = bench(candidates, image=IMAGE, seconds=0.1, blocks=7, processes=3)
    for row in results.rows:
        assert isinstance(row, Result)
        found = row.measurement
        assert found.blocks_per_process == (2, 3, 2)
        assert len(found.cold_starts) == 3
        assert min(start.first_s for start in found.cold_starts) >= 0.001
        assert found.load_s == found.cold_starts[0].load_s
        assert found.steady
        assert len(found.blocks_ns) == len(found.end_to_end_ns) == len(found.others_busy) == 7
        assert {len(block) for block in found.end_to_end_ns} == {max(1, len(found.blocks_ns[0]) // 4)}
        assert found.memory is not None
        assert found.memory.peak_bytes >= found.memory.empty_bytes > 2**22
        assert found.memory.arena_bytes is None
        whole, alone = statistics.end_to_end(found), statistics.summary(found)
        assert whole is not None
        assert whole.median > 0.9 * alone.median
        assert statistics.cold_start(found) is not None
    assert results.unfinished is None


@pytest.mark.usefixtures("no_leftovers")
def test_processes_start_together_and_from_then_on_one_works_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask, answer = Worker.ask, Worker.answer

    def asking(self: Worker[Any], step: Any, *arguments: Any) -> None:
        asked.append(step.__name__)
        ask(self, step, *arguments)

    def answering(self: Worker[Any], *arguments: Any) -> Any:
        asked.append("answer")
        return answer(self, *arguments)

    monkeypatch.setattr(Worker, "ask", asking)
    monkeypatch.setattr(Worker, "answer", answering)
    bench([fake(tmp_path / f"{name}.fake") for name in "abc"], image=IMAGE, seconds=0.01, blocks=4, processes=2)
    first, second = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    for part in (first, second):
        assert part[:6] == ["ready"] * 3 + ["answer"] * 3
        assert part[6::2] == ["open", "warm_up"] * 3 + ["block"] * 6 + ["memory"] * 3
        assert set(part[7::2]) == {"answer"}


@pytest.mark.usefixtures("no_leftovers")
def test_memory_is_above_that_of_the_empty_process_by_what_the_model_takes(tmp_path: Path) -> None:
    with Worker(Workbench) as worker:
        worker.call("opening", 60, Workbench.open, fake(tmp_path / "a.fake"), IMAGE)
        before = worker.call("asking", 60, Workbench.memory)
        worker.call("taking", 60, _take_memory)
        after = worker.call("asking", 60, Workbench.memory)
    assert before is not None
    assert after is not None
    assert after.peak_bytes - before.peak_bytes > 90 * 2**20  # freed again, and still the peak
    assert (before.arena_bytes, after.arena_bytes) == (None, 1234)


def _take_memory(workbench: Workbench) -> None:
    np.ones(100 * 2**20, np.uint8).sum()
    workbench.session.arena_bytes = 1234  # type: ignore[attr-defined]


def _never_settle(workbench: Workbench) -> Warmth:
    durations = iter(range(1, 1000))
    workbench.session.invoke = lambda: time.sleep(0.002 * 1.3 ** next(durations))  # type: ignore[method-assign]
    return workbench.warm_up(0.2)


@pytest.mark.usefixtures("no_leftovers")
def test_a_warm_up_says_whether_the_times_had_settled(tmp_path: Path) -> None:
    with Worker(Workbench) as worker:
        worker.call("opening", 60, Workbench.open, fake(tmp_path / "a.fake", delay_s=0.005), IMAGE)
        settled = worker.call("warming", 60, Workbench.warm_up, 20)
        assert settled.steady
        assert len(settled.samples_ns) >= 6
        assert not worker.call("warming", 60, _never_settle).steady


def _spin() -> None:
    while True:
        pass


@pytest.mark.usefixtures("no_leftovers")
def test_other_load_is_seen_and_own_work_is_not_other_load(tmp_path: Path) -> None:
    spinning = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(2)]
    with Worker(Workbench) as worker:
        worker.call("opening", 60, Workbench.open, fake(tmp_path / "a.fake"), IMAGE)
        for process in spinning:
            process.start()
        try:
            time.sleep(1)
            busy = worker.call("running", 60, Workbench.block, 1, 500, 1).others_busy
        finally:
            for process in spinning:
                process.kill()
                process.join()
    assert busy is not None
    assert busy > 0.3 * min(2, os.cpu_count() or 1) / (os.cpu_count() or 1)


def test_own_work_is_no_other_load(monkeypatch: pytest.MonkeyPatch) -> None:
    workbench = Workbench()
    workbench.session = types.SimpleNamespace(  # type: ignore[assignment]
        invoke=lambda: sum(range(10_000)), encode=lambda _: None, decode=lambda: None
    )
    workbench._images = IMAGE
    own = time.process_time
    monkeypatch.setattr(counters, "busy_s", lambda: 100 + own())  # a machine on which nobody else works
    assert workbench.block(1, 200, 10).others_busy == pytest.approx(0, abs=0.02)
    monkeypatch.setattr(counters, "busy_s", lambda: 100 + own() + time.perf_counter())  # one core of others' work
    assert workbench.block(1, 200, 10).others_busy == pytest.approx(1 / (os.cpu_count() or 1), rel=0.2)


def test_energy_is_kept_where_it_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workbench = Workbench()
    workbench.session = types.SimpleNamespace(  # type: ignore[assignment]
        invoke=lambda: None, encode=lambda _: None, decode=lambda: None
    )
    workbench._images = IMAGE
    readings = iter(range(100, 10_000, 7))
    monkeypatch.setattr(counters, "joules", lambda: counters.Joules({"package": (next(readings) * 1000, 10**9)}))
    assert workbench.block(2, 20, 1).energy == Energy(counter="package", joules=0.007, inferences=22)
    monkeypatch.setattr(counters, "joules", lambda: None)
    assert workbench.block(2, 20, 1).energy is None


def test_timing_a_call_costs_less_than_a_microsecond_and_all_calls_are_kept(tmp_path: Path) -> None:
    calls: list[int] = []
    assert len(time_calls(lambda: calls.append(1), 100)) == len(calls) == 100
    session = open_session(fake_file(tmp_path / "empty.fake", delay_s=0.0))
    assert np.median(time_calls(session.invoke, 10_000)) < 20_000  # far above, so that a busy machine passes
    assert 1e-9 <= environment.timer_s() < 1e-4
    assert gc.isenabled()


@pytest.mark.usefixtures("no_leftovers")
def test_a_block_has_at_least_one_invocation(tmp_path: Path) -> None:
    (row,) = bench([fake(tmp_path / "a.fake", delay_s=0.03)], image=IMAGE, seconds=0.01, blocks=2).rows
    assert isinstance(row, Result)
    assert [len(block) for block in row.measurement.blocks_ns] == [1, 1]


@pytest.mark.usefixtures("no_leftovers")
def test_a_failure_is_a_row_with_its_reason_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = fake(tmp_path / "gone.fake")
    gone.path.unlink()
    changed = fake(tmp_path / "changed.fake")
    fake_file(changed.path, classes=4)
    damaged = tmp_path / "damaged.fake"
    damaged.write_text("{}")
    candidates = [
        fake(tmp_path / "crash.fake", crash_after=3),
        fake(tmp_path / "good.fake"),
        fake(tmp_path / "hang.fake", hang_after=60),
        fake(tmp_path / "raise.fake", raise_after=0),
        gone,
        changed,
        candidate_of(damaged),
        candidate_of(tmp_path / "good.fake", device="gpu", threads=2),
        candidate_of(fake_file(tmp_path / "model.pickle")),
    ]
    timeouts = Timeouts(warm_up_s=4, block_s=2)
    results = bench(candidates, image=IMAGE, seconds=0.3, blocks=30, processes=1, timeouts=timeouts)
    good = results.rows[1]
    assert isinstance(good, Result)
    assert len(good.measurement.blocks_ns) == 30
    failures = [row for row in results.rows if isinstance(row, Failure)]
    assert len(failures) == 8
    crash, hang, raised, missing, other, bad, gpu, unknown = failures
    assert {failure.stage for failure in failures} == {"bench"}
    assert crash.subject == "crash.fake, threads 1, batch 1, cpu"
    assert (crash.error, crash.reason) == ("ChildProcessError", "killed by SIGSEGV while warming up")
    assert hang.error == "TimeoutError"
    assert hang.reason.startswith("no answer within ")
    assert (raised.error, raised.reason) == ("RuntimeError", "failed as asked after 0 invocations")
    assert missing.error == "ArtifactError"
    assert "no model file at" in missing.reason
    assert other.error == "ArtifactError"
    assert "not the file that its artifact record describes" in other.reason
    assert bad.error == "RecordError"
    assert "input_shape" in bad.reason
    assert gpu.subject == "good.fake, threads 2, batch 1, gpu"
    assert gpu.reason == "the fake runtime has no device 'gpu'; use cpu"
    assert "has an unknown suffix" in unknown.reason
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert not workers(os.getpid())


@pytest.mark.usefixtures("no_leftovers")
def test_where_the_system_starts_no_more_processes_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, made = os.memfd_create, 0

    def few(name: str) -> int:
        nonlocal made
        made += 1
        if made == 2:
            raise OSError(24, "Too many open files")
        return create(name)

    monkeypatch.setattr(os, "memfd_create", few)
    candidates = [fake(tmp_path / "a.fake"), fake(tmp_path / "b.fake")]
    rows = bench(candidates, image=IMAGE, seconds=0.1, blocks=4, processes=2).rows
    (failure,) = [row for row in rows if isinstance(row, Failure)]
    assert failure.reason == "no process can be started for it: Too many open files"
    (good,) = [row for row in rows if isinstance(row, Result)]
    assert len(good.measurement.blocks_ns) == 4


@pytest.mark.usefixtures("no_leftovers")
def test_a_worker_that_does_not_open_in_time_is_killed(tmp_path: Path) -> None:
    (row,) = bench([fake(tmp_path / "a.fake")], image=IMAGE, timeouts=Timeouts(open_s=0.001)).rows
    assert isinstance(row, Failure)
    assert row.reason == "no answer within 0.001 s while starting; killed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 0}, "seconds, blocks and processes must be positive, got 0, 50 and 5"),
        ({"seconds": float("nan")}, "must be positive"),
        ({"blocks": 0}, "must be positive"),
        (
            {"image": np.zeros((1, 4, 4, 1), np.float32)},
            r"one input .*, of shape \(4, 4, 1\), got shape \(1, 4, 4, 1\)",
        ),
    ],
)
def test_bench_refuses_senseless_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench([fake(tmp_path / "a.fake")], **{"image": IMAGE} | changes)


def test_bench_refuses_to_measure_nothing() -> None:
    with pytest.raises(ConfigError, match="nothing to measure"):
        bench([], image=IMAGE)


# ---- workers


def _abort(_: Workbench) -> None:
    os.write(1, b"noise\n")
    os.write(2, b"terminate called after something\n\n")
    os.abort()


def _be_killed(_: Workbench) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_: Workbench) -> None:
    sys.exit(3)


def _run_out_of_memory(_: Workbench) -> None:
    raise MemoryError


def _run_out_in_cpp(_: Workbench) -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what(): std::bad_alloc\n")
    os.abort()


def _run_out_in_a_runtime(_: Workbench) -> None:
    raise RuntimeError("Failed to allocate memory for requested buffer of size 99")


def _interrupt(_: Workbench) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize(
    ("step", "error", "reason"),
    [
        (
            _abort,
            "ChildProcessError",
            "killed by SIGABRT (its last line: terminate called after something) while trying",
        ),
        (_be_killed, "ChildProcessError", "killed by SIGKILL, possibly because memory ran out, while trying"),
        (_exit, "ChildProcessError", "ended with exit status 3 while trying"),
        (_run_out_of_memory, "MemoryError", "out of memory"),
        (
            _run_out_in_cpp,
            "MemoryError",
            "killed by SIGABRT, out of memory (its last line: what(): std::bad_alloc) while trying",
        ),
        (
            _run_out_in_a_runtime,
            "MemoryError",
            "out of memory: Failed to allocate memory for requested buffer of size 99",
        ),
    ],
)
def test_the_end_of_a_worker_is_explained(
    step: Any, error: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Worker(Workbench) as worker, pytest.raises(WorkerError) as caught:
        worker.call("trying", 60, step)
    assert (caught.value.error, caught.value.reason) == (error, reason)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_leftovers")
def test_a_kill_by_the_kernel_for_lack_of_memory_is_told_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter((7, 8))
    monkeypatch.setattr("edgecnn.worker.out_of_memory_kills", lambda: next(kills))
    with Worker(Workbench) as worker, pytest.raises(WorkerError) as caught:
        worker.call("trying", 60, _be_killed)
    assert caught.value.error == "MemoryError"
    assert caught.value.reason == "killed by SIGKILL: the kernel had no memory left, while trying"


def _first_to_go(_: Workbench) -> str:
    return Path("/proc/self/oom_score_adj").read_text().strip()


@pytest.mark.usefixtures("no_leftovers")
def test_where_memory_runs_out_the_worker_is_the_first_to_go() -> None:
    with Worker(Workbench) as worker:
        assert worker.call("asking", 60, _first_to_go) == "1000"


MEMORY = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
sys.path.insert(0, sys.argv[1])
from test_bench import IMAGE, candidate_of
from edgecnn.measure import bench
from edgecnn.records import to_json
results = bench([candidate_of(Path(path)) for path in sys.argv[2:]], image=IMAGE, seconds=0.1, blocks=3)
sys.stdout.buffer.write(to_json(results))
"""


def test_a_model_that_takes_all_memory_ends_alone(tmp_path: Path) -> None:
    files = [fake_file(tmp_path / "bomb.fake", gorge_after=5), fake_file(tmp_path / "good.fake")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(Path(__file__).parent), *map(str, files)],
        capture_output=True,
        check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    bomb, good = from_json(done.stdout, BenchResults, "stdout").rows
    assert isinstance(bomb, Failure)
    assert bomb.error == "MemoryError"
    assert bomb.reason.startswith("out of memory: Unable to allocate 16.0 MiB")
    assert isinstance(good, Result)


def _hang(_: Workbench) -> None:
    time.sleep(600)


@pytest.mark.usefixtures("no_leftovers")
def test_a_hanging_worker_is_gone_before_the_others_go_on() -> None:
    with Worker(Workbench) as worker:
        with pytest.raises(WorkerError) as caught:
            worker.call("trying", 0.5, _hang)
        assert caught.value.error == "TimeoutError"
        assert workers(os.getpid()) == []


@pytest.mark.usefixtures("no_leftovers")
def test_a_worker_does_not_hear_ctrl_c_and_ends_with_its_block() -> None:
    with Worker(Workbench) as worker:
        assert worker.call("trying", 60, _interrupt) == "still here"
        assert len(workers(os.getpid())) == 1


@pytest.mark.usefixtures("no_leftovers")
def test_an_error_in_the_parent_ends_the_worker() -> None:
    with pytest.raises(ZeroDivisionError), Worker(Workbench):
        1 / 0  # noqa: B018


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_bench import IMAGE, candidate_of
from edgecnn.measure import bench
print("script runs", flush=True)
bench([candidate_of(Path(path)) for path in sys.argv[2:]], image=IMAGE, seconds=60, blocks=1000)
"""


def test_ctrl_c_leaves_no_worker_and_no_word_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # without a main guard: workers must not run it again
    script.write_text(SCRIPT)
    files = [str(fake_file(tmp_path / f"{name}.fake", delay_s=0.01)) for name in "abc"]
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
    )
    try:
        deadline = time.monotonic() + 60
        while len(workers(process.pid)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert out == "script runs\n"
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert [pid for pid in found if Path(f"/proc/{pid}").exists()] == []
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.usefixtures("no_leftovers")
def test_an_interrupted_call_keeps_finished_rounds_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = [
        fake(tmp_path / "a.fake"),
        fake(tmp_path / "crash.fake", crash_after=3),
        fake(tmp_path / "b.fake", delay_s=0.002),
    ]
    how: dict[str, Any] = {"image": IMAGE, "seconds": 0.2, "blocks": 9, "processes": 3, "seed": 4}
    call, blocks = Worker.call, 0

    def interrupt(self: Worker[Any], doing: str, *arguments: Any) -> Any:
        nonlocal blocks
        blocks += doing == "running a block"
        if blocks == 10:  # two of a round each: after four rounds and a half
            raise KeyboardInterrupt
        return call(self, doing, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "call", interrupt)
        with pytest.raises(Interrupted) as stopped:
            bench(candidates, **how)
    kept = stopped.value.results
    assert kept.unfinished is not None
    a, crash, b = kept.rows
    assert isinstance(a, Result)
    assert isinstance(b, Result)
    assert isinstance(crash, Failure)
    for row in (a, b):
        assert row.measurement.blocks_per_process == (3, 1)
        assert len(row.measurement.blocks_ns) == len(row.measurement.end_to_end_ns) == 4

    results = bench(candidates, **how, earlier=from_json(to_json(kept), BenchResults, "kept"))
    assert results.unfinished is None
    assert results.environment == kept.environment
    assert results.rows[1] == crash
    for before, after in ((a, results.rows[0]), (b, results.rows[2])):
        assert isinstance(after, Result)
        assert after.measurement.blocks_ns[:4] == before.measurement.blocks_ns
        assert len(after.measurement.blocks_ns) == len(after.measurement.end_to_end_ns) == 9
        assert after.measurement.blocks_per_process == (3, 1, 2, 3)
        assert len(after.measurement.cold_starts) == 4
        assert len(set(map(len, after.measurement.blocks_ns))) == 1

    for change in ({"seconds": 0.3}, {"seed": 5}, {"blocks": 10}, {"processes": 2}):
        with pytest.raises(ConfigError, match="other candidates or settings"):
            bench(candidates, **how | change, earlier=kept)
    with pytest.raises(ConfigError, match="other candidates or settings"):
        bench(candidates[::-1], **how, earlier=kept)


def test_an_interruption_before_the_first_round_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "call", interrupt)
    with pytest.raises(KeyboardInterrupt) as stopped:
        bench([fake(tmp_path / "a.fake")], image=IMAGE)
    assert not isinstance(stopped.value, Interrupted)


# ---- statistics


def test_summary_has_the_values_computed_by_hand() -> None:
    found = statistics.summary(measurement_of((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0), batch=2))
    assert found.samples == 9
    assert found.median == 5
    assert found.p90.value == pytest.approx(8.2)  # 0.9 * 8 = 7.2 steps up from the lowest
    assert found.throughput == pytest.approx(2 * 9 / 45)


def test_an_interval_from_two_processes_is_computed_by_hand() -> None:
    """Drawing two of two processes with medians 1 and e gives, on the logarithm, 0, 0 or 1 or 1, 1 at 1:2:1.

    The lower of two values counts as their median, so that is 0 in three of four draws, with standard deviation
    sqrt(3) / 4. Student's t for two processes is 12.706.
    """
    found = statistics.summary(measurement_of(*10 * [(1.0,)], *10 * [(math.e,)], blocks_per_process=(10, 10)))
    assert found.median == pytest.approx((1 + math.e) / 2)
    assert math.log(found.high / found.median) == pytest.approx(12.706 * math.sqrt(3) / 4, rel=0.1)
    assert found.low * found.high == pytest.approx(found.median**2)


def test_nothing_is_known_from_one_block() -> None:
    found = statistics.summary(measurement_of((1.0, 2.0, 3.0)))
    assert (found.low, found.median, found.high) == (0, 2, math.inf)


def test_p99_is_withheld_below_a_thousand_samples() -> None:
    values = tuple(float(value) for value in range(1, 1001))
    found = statistics.summary(measurement_of(values[:500], values[500:])).p99
    assert found is not None
    assert found.value == pytest.approx(990.01)
    assert found.low < found.value < found.high
    assert statistics.summary(measurement_of(values[1:])).p99 is None


def test_the_interval_counts_blocks_not_samples() -> None:
    generator = np.random.default_rng(0)
    levels = generator.normal(1.0, 0.1, 30)
    alike = [tuple(levels[index] + generator.normal(0, 0.001, 100)) for index in range(30)]
    mixed = generator.permutation(np.concatenate(alike)).reshape(30, 100)
    wide = statistics.summary(measurement_of(*alike))
    narrow = statistics.summary(measurement_of(*(tuple(block) for block in mixed)))
    assert wide.median == narrow.median
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert wide.low < wide.median < wide.high


def simulated(generator: Generator, *, process: float = 0.003, round_: float = 0.005) -> Measurement:
    """Five processes of ten blocks of forty samples around 1: processes differ, blocks resemble their neighbours."""
    blocks = []
    for level in generator.normal(0, process, 5):
        drift = 0.0
        for step in generator.normal(0, round_, 10):
            drift = 0.8 * drift + step
            noise = generator.gamma(2, 0.005, 40) + (generator.random(40) < 0.03) * generator.exponential(0.05, 40)
            blocks.append(tuple(np.exp(level + drift + noise)))
    return measurement_of(*blocks, blocks_per_process=(10,) * 5)


def test_ninety_five_percent_intervals_hold_the_truth_about_as_often() -> None:
    generator = np.random.default_rng(1)
    many = np.concatenate([simulated(generator).samples_s for _ in range(300)])
    median, p90, p99 = np.percentile(many, (50, 90, 99))
    runs = 100
    hits = np.zeros(3)
    naive = 0
    for _ in range(runs):
        measurement = simulated(generator)
        found = statistics.summary(measurement)
        assert found.p99 is not None
        hits += (
            found.low <= median <= found.high,
            found.p90.low <= p90 <= found.p90.high,
            found.p99.low <= p99 <= found.p99.high,
        )
        alone = statistics.summary(measurement.replace(blocks_per_process=()))
        naive += alone.low <= median <= alone.high
    assert min(hits) >= 0.9 * runs
    assert naive < 0.9 * runs  # as if blocks of one process had nothing in common: what the hierarchy is for


def test_a_file_against_itself_is_a_difference_in_few_runs_and_five_percent_in_most() -> None:
    generator = np.random.default_rng(2)
    found = {"itself": 0, "slower": 0}
    for _ in range(100):
        one, other = simulated(generator), simulated(generator)
        slow = other.replace(blocks_ns=tuple(tuple(round(1.05 * time) for time in block) for block in other.blocks_ns))
        found["itself"] += statistics.difference(statistics.ratio(one, other)) != "none"
        found["slower"] += statistics.difference(statistics.ratio(slow, one)) == "slower"
    assert found["itself"] <= 5
    assert found["slower"] >= 95


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.8, 0.99, "faster"), (0.8, 1.0, "none"), (1.0, 1.2, "none"), (1.01, 1.2, "slower")]
)
def test_a_difference_is_one_only_where_the_interval_excludes_one(low: float, high: float, said: str) -> None:
    assert statistics.difference(Estimate(value=1, low=low, high=high)) == said


def test_ratio_pairs_blocks_by_round() -> None:
    generator = np.random.default_rng(2)
    machine = generator.uniform(1, 5, 40)  # how slow the machine is in each round
    one = measurement_of(*((2.0 * slow, 2.02 * slow, 1.98 * slow) for slow in machine))
    other = measurement_of(*((1.0 * slow, 1.01 * slow, 0.99 * slow) for slow in machine))
    found = statistics.ratio(one, other)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert statistics.ratio(other, one).value == pytest.approx(0.5)


def test_ratio_has_the_median_of_block_ratios() -> None:
    found = statistics.ratio(measurement_of((2.0,), (3.0,), (8.0,)), measurement_of((1.0,), (1.0,), (2.0,)))
    assert found.value == 3
    assert found.low < 3 < found.high


def test_ratio_refuses_unequal_blocks_and_processes() -> None:
    with pytest.raises(BenchError, match=r"cannot pair 1 blocks of a\.fake with 2"):
        statistics.ratio(measurement_of((1.0,)), measurement_of((1.0,), (1.0,)))
    with pytest.raises(BenchError, match="cannot pair"):
        statistics.ratio(measurement_of((1.0,), (1.0,), blocks_per_process=(1, 1)), measurement_of((1.0,), (1.0,)))


CLEAN = tuple(tuple(0.001 + 1e-6 * ((7 * block + step) % 13) for step in range(20)) for block in range(30))


def test_clean_data_raise_no_warning() -> None:
    machine = environment.environment().replace(timer_s=1e-7)
    assert statistics.warnings(measurement_of(*CLEAN, others_busy=(0.05,) * 30)) == ()
    assert statistics.warnings(measurement_of(*CLEAN), machine) == ()


def _times(blocks: Blocks, slower: Callable[[int, int], float]) -> tuple[tuple[int, ...], ...]:
    """``blocks`` with each time multiplied by what ``slower`` says for its block and place."""
    return in_ns((time * slower(i, j) for j, time in enumerate(block)) for i, block in enumerate(blocks))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks_ns": in_ns(block[:3] for block in CLEAN)}, "only 90 samples"),
        ({"blocks_ns": in_ns(CLEAN[:9])}, "only 9 blocks"),
        ({"blocks_ns": _times(CLEAN, lambda block, _: 1.1 if block >= 20 else 1)}, r"by \+10%"),
        (
            {"blocks_ns": _times(CLEAN, lambda _, place: 1.5 if place > 14 else 1)},
            r"two modes, 25% .* around 1\.50 times",
        ),
        ({"blocks_ns": _times(CLEAN, lambda _, place: 1 + 0.4 * max(0, place - 15))}, r"p90 is 1\.\d times"),
        ({"blocks_ns": _times(CLEAN, lambda *_: 0.001)}, "below 10 µs"),
        ({"others_busy": (0.0, 0.5) * 15}, "other processes used 25% of the cores"),
        ({"steady": False}, "were not steady when the warm-up ended"),
    ],
)
def test_each_weakness_raises_its_own_warning(changes: dict[str, Any], message: str) -> None:
    (warning,) = statistics.warnings(measurement_of(*CLEAN).replace(**changes))
    assert re.search(message, warning)


def test_times_are_held_against_the_timer_of_their_machine() -> None:
    machine = environment.environment().replace(timer_s=2e-5)
    (warning,) = statistics.warnings(measurement_of(*CLEAN), machine)
    assert warning.startswith("the median is below 2000 µs")


def test_weaknesses_of_the_machine_raise_their_own_warnings() -> None:
    quiet = environment.environment().replace(governor="performance", load_1min=0.1, cores=4, cpu_quota=None)
    assert statistics.machine_warnings(quiet) == ()
    assert statistics.machine_warnings(quiet.replace(governor=None, load_1min=None)) == ()
    for changes, message in (
        ({"governor": "schedutil"}, "the frequency governor is 'schedutil'"),
        ({"load_1min": 2.5}, "load average was 2.5"),
        ({"cpu_quota": 0.5, "usable_cores": 1}, "is limited to 0.5 cores"),
    ):
        (warning,) = statistics.machine_warnings(quiet.replace(**changes))
        assert message in warning


@pytest.mark.parametrize("kind", ["normal", "gamma", "uniform", "pareto", "coarse clock"])
@pytest.mark.parametrize("count", [50, 1000])
def test_one_mode_is_one(kind: str, count: int) -> None:
    generator = np.random.default_rng(3)
    samples = {
        "normal": generator.normal(1, 0.05, (20, count)),
        "gamma": 1 + generator.gamma(1, 0.1, (20, count)),
        "uniform": generator.uniform(1, 1.5, (20, count)),
        "pareto": 1 + generator.pareto(2, (20, count)),
        "coarse clock": np.round(generator.normal(40, 2, (20, count))),
    }[kind]
    assert [found for row in samples if (found := two_modes(row)) is not None] == []


def test_two_modes_are_two() -> None:
    generator = np.random.default_rng(4)
    times = generator.normal(1, 0.02, 1000)
    times[::4] *= 1.3
    found = two_modes(times)
    assert found is not None
    assert found.share == pytest.approx(0.25, abs=0.01)
    assert found.upper / found.lower == pytest.approx(1.3, abs=0.02)
    assert two_modes(np.where(np.arange(1000) % 4, 1, 1.02) * generator.normal(1, 0.001, 1000)) is None  # 2 % apart
    assert two_modes(np.ones(100)) is None
    # as measured: two steps of the clock 1 % apart, and a few times that are far off
    assert two_modes(np.concatenate([np.full(600, 1.0), np.full(390, 1.01), np.full(10, 70.0)])) is None


# ---- environment


def test_environment_describes_this_machine_without_naming_it() -> None:
    found = environment.environment()
    assert found.machine == environment.environment().machine
    assert len(found.machine) == 12
    assert int(found.machine, 16) >= 0
    assert found.cores >= found.usable_cores >= 1
    assert found.memory_bytes is None or found.memory_bytes > 2**28
    assert found.python == platform.python_version()
    assert found.versions["numpy"] == np.__version__
    assert "edgecnn" in found.versions
    text = to_json(found).decode()
    for secret in (platform.node(), getpass.getuser(), Path("/etc/machine-id").read_text().strip()):
        assert len(secret) < 4 or secret not in text


def test_a_machine_with_another_processor_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a virtual machine that is started again on another host."""
    found = []
    for features in (("avx2",), ("avx2", "avx512_vnni")):
        monkeypatch.setattr(environment, "this_processor", lambda features=features: ("One CPU", features))
        found.append(environment.environment().machine)
    assert found[0] != found[1]


X86 = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu sse4_1 avx avx2 fma avx512f avx512_vnni amx_int8
"""
RASPBERRY = """processor\t: 0
Features\t: fp asimd evtstrm crc32 asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_cpuinfo_is_read_on_x86_and_arm() -> None:
    x86_features = ("fma", "avx2", "avx512f", "avx512_vnni", "amx_int8")
    name, features = parse_cpuinfo(X86)
    assert name == "Some CPU @ 2.00GHz"
    assert set(x86_features) <= set(features)
    assert parse_cpuinfo(RASPBERRY) == ("Raspberry Pi 5 Model B Rev 1.0", ("asimd", "asimdhp", "asimddp"))
    without_model = RASPBERRY.partition("\n\n")[0]
    assert parse_cpuinfo(without_model)[0] == "Arm implementer 0x41 part 0xd0b"
    assert parse_cpuinfo("") == (None, ())


@pytest.mark.parametrize(
    ("files", "quota", "limit"),
    [
        ({}, None, None),
        ({"proc/self/cgroup": "0::/\n", "cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ({"proc/self/cgroup": "0::/\n", "cpu.max": "150000 100000", "memory.max": "1000"}, 1.5, 1000),
        # the limit of a group above counts too, and the lowest of all
        (
            {"proc/self/cgroup": "0::/pod/box\n", "pod/box/cpu.max": "300000 100000", "pod/cpu.max": "50000 100000"},
            0.5,
            None,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/\n",
                "memory/box/memory.limit_in_bytes": "2000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu,cpuacct/box/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2.5,
            2000,
        ),
        # inside a container that sees its own group as the top, though the name is that outside
        ({"proc/self/cgroup": "4:memory:/docker/abc\n", "memory/memory.limit_in_bytes": "3000"}, None, 3000),
    ],
)
def test_limits_of_containers_are_read(
    tmp_path: Path, files: dict[str, str], quota: float | None, limit: int | None
) -> None:
    for name, text in files.items():
        path = tmp_path / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert environment.cpu_quota(tmp_path) == quota
    assert environment.memory_limit(tmp_path) == limit


@pytest.mark.parametrize(("quota", "usable"), [(None, 4), (1.5, 1), (0.5, 1)])
def test_usable_cores_heed_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    found = environment.environment()
    assert (found.usable_cores, found.affinity, found.cpu_quota) == (usable, (0, 1, 2, 3), quota)


def test_frequencies_are_those_of_all_cores(tmp_path: Path) -> None:
    assert environment.frequency_hz(tmp_path) is None
    for core, (low, high) in enumerate(((600000, 1800000), (400000, 2400000))):
        folder = tmp_path / f"cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_min_freq").write_text(f"{low}\n")
        (folder / "scaling_max_freq").write_text(f"{high}\n")
    assert environment.frequency_hz(tmp_path) == (400_000_000, 2_400_000_000)


# ---- counters


def test_busy_time_is_work_of_all_cores(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 20 30 9999 888 4 5 60 7 8\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert counters.busy_s(tmp_path / "stat") == pytest.approx((100 + 20 + 30 + 4 + 5 + 60) / os.sysconf("SC_CLK_TCK"))
    assert counters.busy_s(tmp_path / "none") is None
    assert out_of_memory_kills(tmp_path / "none") == 0
    (tmp_path / "vmstat").write_text("nr_free 1\noom_kill 7\n")
    assert out_of_memory_kills(tmp_path / "vmstat") == 7


def rapl(powercap: Path, package: int, energy: int, full: int = 1000_000) -> None:
    for zone in (f"intel-rapl:{package}", f"intel-rapl:{package}:0"):
        (powercap / zone).mkdir(parents=True, exist_ok=True)
        (powercap / zone / "name").write_text(f"package-{package}\n")
        (powercap / zone / "energy_uj").write_text(f"{energy}\n")
        (powercap / zone / "max_energy_range_uj").write_text(f"{full}\n")


def test_energy_is_that_of_all_packages_even_where_a_counter_starts_again(tmp_path: Path) -> None:
    assert counters.joules(tmp_path) is None
    rapl(tmp_path, 0, 100_000)
    rapl(tmp_path, 1, 990_000)
    before = counters.joules(tmp_path)
    rapl(tmp_path, 0, 400_000)
    rapl(tmp_path, 1, 10_000)
    after = counters.joules(tmp_path)
    assert before is not None
    assert after is not None
    assert after.since(before) == pytest.approx(0.3 + 0.02)
    assert after.counter == "intel-rapl:0 (package-0), intel-rapl:1 (package-1)"
    (tmp_path / "intel-rapl:1/energy_uj").unlink()  # as where only root may read it: no half a sum
    assert counters.joules(tmp_path) is None


def test_importing_bench_loads_no_runtime() -> None:
    code = (
        "import sys, edgecnn.measure.baseline, edgecnn.measure.statistics\n"
        "print([name for name in sys.modules if name in "
        "('tensorflow', 'keras', 'onnxruntime', 'ai_edge_litert', 'jax', 'torch', 'onnx', 'scipy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- real runtimes


def test_a_real_runtime_is_measured_its_import_is_no_load_time_and_it_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    path = tmp_path / "sum.onnx"
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        "sum",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    (row,) = bench([candidate_of(path, batch=3)], image=IMAGE, seconds=0.1, blocks=3).rows
    assert isinstance(row, Result), row
    assert (row.measurement.runtime, row.measurement.batch) == ("onnxruntime", 3)
    assert row.measurement.load_s > 0
    assert min(start.import_s for start in row.measurement.cold_starts) > 0.001
    assert row.measurement.memory is not None
    assert row.measurement.memory.peak_bytes - row.measurement.memory.empty_bytes > 2**20
    assert list((tmp_path / "temporary").iterdir()) == []


# ---- baseline


@pytest.fixture(scope="module")
def keras_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that puts an image into class 1 if its mean is above one half, else into class 0."""
    code = (
        "import sys, keras, numpy as np\n"
        "layers = [keras.Input((4, 4, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]\n"
        "model = keras.Sequential(layers)\n"
        "model.set_weights([np.array([[-1.0, 1.0]]), np.array([0.5, -0.5])])\n"
        "model.save(sys.argv[1])\n"
    )
    path = tmp_path_factory.mktemp("model") / "model.keras"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    return path


@pytest.mark.usefixtures("no_leftovers")
def test_baseline_measures_latency_and_counts_accuracy(tmp_path: Path, keras_model: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    images = np.full((300, 4, 4, 1), 0.2, np.float32) + 0.6 * labels[:, None, None, None].astype(np.float32)
    labels[:30] = 1 - labels[:30]  # thirty images with the wrong label
    raw = (images * 255).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x_train=raw, y_train=labels, x_test=raw, y_test=labels)
    baseline = record_baseline(keras_model, load(str(tmp_path / "data.npz")), device="cpu")
    assert (baseline.device, baseline.backend) == ("cpu", os.environ.get("KERAS_BACKEND", "tensorflow"))
    assert baseline.accuracy == Accuracy(correct=270, total=300)
    assert baseline.model_sha256 == baseline.measurement.artifact_sha256 == sha256_file(keras_model)
    assert (baseline.measurement.runtime, baseline.measurement.batch) == ("keras", 1)
    assert len(baseline.measurement.blocks_ns) == 50
    (tmp_path / "baseline.json").write_bytes(to_json(baseline))
    assert load_baseline(tmp_path / "baseline.json") == baseline
    newer = to_json(baseline).replace(b'"schema_version": 2', b'"schema_version": 99')
    (tmp_path / "newer.json").write_bytes(newer)
    with pytest.raises(RecordError, match=r"newer\.json .* has schema version 99, this edgecnn reads 2"):
        load_baseline(tmp_path / "newer.json")


@pytest.mark.usefixtures("no_leftovers")
def test_baseline_says_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "abacus")
    with pytest.raises(BenchError, match=r"^no baseline of model\.keras: .*abacus"):
        record_baseline(tmp_path / "model.keras", None)
    with pytest.raises(ConfigError, match="unknown device 'tpu'; choose from: auto, cpu, gpu"):
        record_baseline(tmp_path / "model.keras", None, device="tpu")
    with pytest.raises(ConfigError, match=r"model\.tflite does not end in \.keras"):
        record_baseline(tmp_path / "model.tflite", None)


def test_load_baseline_names_the_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*none\.json: No such file"):
        load_baseline(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"schema_version": 1}')
    with pytest.raises(RecordError, match=r"bad\.json is not a valid Baseline file"):
        load_baseline(tmp_path / "bad.json")
