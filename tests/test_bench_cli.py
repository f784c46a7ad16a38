"""``edgecnn bench`` as a command: sweeps, interruption, a full disk, and a file against itself; on fake models."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_bench import fake_file
from tools import workers

from edgecnn import cli
from edgecnn.measure.files import AgainstItself
from edgecnn.records import Failure, Report, Result, from_json, to_json
from edgecnn.worker import Worker

pytestmark = pytest.mark.slow

QUICK = ("--seconds", "0.1", "--cold", "2")


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def edgecnn(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Ended(int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def bench(edgecnn: Any) -> Any:
    return partial(edgecnn, "bench")


def report_in(path: Path) -> Report:
    return from_json(path.read_bytes(), Report, path)


def test_threads_and_batches_are_swept_and_a_fixed_batch_is_no_error_beside_one_that_works(
    bench: Any, tmp_path: Path
) -> None:
    free, fixed = fake_file(tmp_path / "free.fake"), fake_file(tmp_path / "fixed.fake", fixed_batch=2)
    out = tmp_path / "results.json"
    ended = bench(free, fixed, *QUICK, "--threads", "1,2", "--batch", "1,2", "--out", out)
    assert ended.status == 0, ended.err
    rows = report_in(out).rows
    assert [
        (row.artifact.file, row.measurement.batch, row.measurement.threads) for row in rows if isinstance(row, Result)
    ] == [
        ("free.fake", 1, 1),
        ("free.fake", 1, 2),
        ("free.fake", 2, 1),
        ("free.fake", 2, 2),
        ("fixed.fake", 2, 1),
        ("fixed.fake", 2, 2),
    ]
    (impossible,) = [row for row in rows if isinstance(row, Failure)]
    assert impossible.expected
    assert impossible.subject == "fixed.fake, batch 1"
    assert "fixed batch of 2; export it with --batch dynamic" in impossible.reason

    ended = bench(free, fixed, *QUICK, "--batch", "1,4")  # none of these
    assert ended.status == 1
    assert "fixed.fake supports only a batch of 2, got 4" in " ".join(ended.out.split())


def test_runtimes_are_chosen_by_name(bench: Any, tmp_path: Path) -> None:
    model = fake_file(tmp_path / "a.fake")
    out = tmp_path / "results.json"
    assert bench(model, *QUICK, "--runtimes", "litert,fake", "--out", out).status == 0
    (row,) = report_in(out).rows
    assert isinstance(row, Result)
    assert row.measurement.runtime == "fake"
    ended = bench(model, *QUICK, "--runtimes", "litert,onnxruntime")
    assert ended.status == 1
    assert "litert, onnxruntime cannot run .fake files" in " ".join(ended.out.split())
    ended = bench(model, *QUICK, "--runtimes", "abacus")
    assert ended.status == 2
    assert "unknown runtime 'abacus'; choose from:" in ended.err


def test_a_file_against_itself(edgecnn: Any, tmp_path: Path) -> None:
    noise = partial(edgecnn, "diagnose", "noise")
    model, out = fake_file(tmp_path / "a.fake"), tmp_path / "aa.json"
    ended = noise(model, *QUICK, "--out", out)
    assert ended.status == 0, ended.err
    assert re.fullmatch(r"a\.fake against itself: time ratio [\d.]+ \[[\d.]+, [\d.]+\]: [a-z ,]+\n", ended.out)
    found = from_json(out.read_bytes(), AgainstItself, out)
    assert found.ratio.low < found.ratio.value < found.ratio.high
    assert found.rows[0].measurement.blocks_ns != found.rows[1].measurement.blocks_ns
    ended = noise(model, *QUICK, "--json")
    assert json.loads(ended.out)["difference"] in ("faster", "slower", "none")
    ended = noise(fake_file(tmp_path / "crash.fake", crash_after=0), *QUICK)
    assert ended.status == 1
    assert "killed by SIGSEGV" in ended.err


def interrupt_at(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    call, blocks = Worker.call, 0

    def interrupting(self: Worker[Any], doing: str, *arguments: Any) -> Any:
        nonlocal blocks
        blocks += doing == "running a block"
        if blocks == block:
            raise KeyboardInterrupt
        return call(self, doing, *arguments)

    monkeypatch.setattr(Worker, "call", interrupting)


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [fake_file(tmp_path / "a.fake"), tmp_path / "none.fake", *QUICK, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 21)
        ended = bench(*command)
    assert (ended.status, ended.out) == (130, "")
    assert ended.err.endswith(
        f"edgecnn: interrupted; {out} has the finished rounds; run the same command again to resume\n"
    )
    kept = report_in(out)
    row, failure = kept.rows
    assert isinstance(row, Result)
    assert isinstance(failure, Failure)
    assert len(row.measurement.blocks_ns) == 20
    assert kept.unfinished

    assert bench(*command).status == 1  # for none.fake
    whole = report_in(out)
    after, failure = whole.rows
    assert isinstance(after, Result)
    assert isinstance(failure, Failure)
    assert after.measurement.blocks_ns[:20] == row.measurement.blocks_ns
    assert len(after.measurement.blocks_ns) == 50
    assert after.measurement.blocks_per_process == (20, 5, 25)
    assert whole.unfinished is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fake", "results.json"]

    assert bench(*command).status == 1  # a finished one is measured again
    again = report_in(out).rows[0]
    assert isinstance(again, Result)
    assert again.measurement.blocks_ns[0] != after.measurement.blocks_ns[0]


@pytest.mark.parametrize("damage", ["no row", "another file", "other rounds"])
def test_finished_rounds_that_are_not_of_these_files_are_put_aside(damage: str, bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    files = [fake_file(tmp_path / "a.fake"), fake_file(tmp_path / "b.fake", delay_s=1e-4)]
    command = [*files, *QUICK, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 21)
        assert bench(*command).status == 130
    kept = report_in(out)
    one, other = kept.rows
    assert isinstance(one, Result)
    assert isinstance(other, Result)
    fewer = one.measurement.replace(blocks_ns=one.measurement.blocks_ns[:1], end_to_end_ns=(), blocks_per_process=())
    rows = {"no row": (), "another file": (other, one), "other rounds": (one.replace(measurement=fewer), other)}
    out.write_bytes(to_json(kept.replace(rows=rows[damage])))
    assert bench(*command).status == 0
    assert (tmp_path / "results.interrupted-1.json").is_file()
    assert [len(row.measurement.blocks_ns) for row in report_in(out).rows if isinstance(row, Result)] == [50, 50]


def test_an_interrupted_measurement_with_other_settings_is_put_aside_and_that_is_said(
    bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "results.json"
    model = fake_file(tmp_path / "a.fake")
    for number in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            interrupt_at(patch, 11)
            assert bench(model, *QUICK, "--seed", number, "--out", out).status == 130
        before = out.read_bytes()
        assert bench(model, *QUICK, "--seed", number + 10, "--out", out).status == 0
        aside = tmp_path / f"results.interrupted-{number}.json"
        moved = f"{out} contained an interrupted measurement of other files or settings; renamed it to {aside}"
        assert moved in caplog.text
        assert aside.read_bytes() == before
        assert report_in(out).unfinished is None


def test_a_real_ctrl_c_leaves_the_file_and_no_process(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    model = fake_file(tmp_path / "a.fake", delay_s=0.0001)
    command = [sys.executable, "-m", "edgecnn", "bench", model, "--seconds", "600", "--cold", "1", "--out", out]
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [*map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
    )
    try:
        deadline = time.monotonic() + 120
        while _processor_s(process.pid) < 0.2:  # the model sleeps, so this is work of many rounds
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        found = workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "has the finished rounds" in err
    assert report_in(out).unfinished
    assert [pid for pid in found if Path(f"/proc/{pid}").exists()] == []
    assert list((tmp_path / "temporary").iterdir()) == []


def _processor_s(parent: int) -> float:
    """Seconds that the youngest worker of ``parent`` has worked since it measures; 0 before that."""
    total = 0.0
    for pid in workers(parent):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        voluntary = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        if voluntary and int(voluntary[1]) > 2000:  # each invocation sleeps once
            total = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def test_a_full_disk_loses_no_finished_rows(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text("what was there before")
    model = fake_file(tmp_path / "a.fake")

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", "bench", str(model), *QUICK, "--out", str(out)],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
    )
    assert done.returncode == 1
    assert "a.fake" in done.stdout
    assert "fake" in done.stdout
    assert f"edgecnn: cannot write {out}: File too large" in done.stderr
    assert out.read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fake", "results.json"]
