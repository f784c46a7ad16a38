"""The section of a report in which the model answers, in a real browser and under the page's own policy."""

import dataclasses
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import Checker, a_report, chromium, noise

from edgecnn.data.dataset import DataSet
from edgecnn.embed.web import script
from edgecnn.errors import UnsupportedError
from edgecnn.records import Demo
from edgecnn.report import write
from edgecnn.report.demo import demo
from edgecnn.runtimes import open_session, predict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def floats(workspace: Any) -> Any:
    """Answers of a float model, which are known: that of sample i is class i % 10."""
    return np.eye(10, dtype=np.float32)[np.arange(len(workspace.data.test.labels)) % 10]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(workspace: Any) -> Iterator[None]:
    """Compiling takes longer than all else."""
    compiled = script(workspace.path("tflite", "int8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecnn.report.demo.script", lambda model: compiled)
        yield


@pytest.fixture(scope="module")
def made(workspace: Any, floats: Any) -> Demo:
    return demo(workspace.path("tflite", "int8"), workspace.data, floats)


@pytest.fixture(scope="module")
def report_path(made: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(a_report(), tmp_path_factory.mktemp("demo"), made)[-1]


def tried(page: Path, folder: Path, script: str) -> Any:
    """What the asynchronous function body ``script`` of the page's document returns, and ``ready``, which waits.

    The page runs untouched in a frame. A picture that the server holds back keeps the browser until there is an answer.
    """
    answers: list[bytes] = []
    there = threading.Event()
    frame = f"""<!doctype html><iframe width="1280" height="900" src="/page"></iframe><img src="/wait"><script>
      document.querySelector("iframe").onload = async (event) => {{
        const [document, window] = [event.target.contentDocument, event.target.contentWindow];
        const at = (id) => document.getElementById(`demo-${{id}}`);
        const until = async (found) => {{
          while (!found()) await new Promise((resolve) => setTimeout(resolve, 20));
        }};
        const ready = () => until(() => !at("try").hidden || at("state").textContent.includes("cannot"));
        const ask = async () => {{ {script} }};
        const answer = await ask().catch((error) => `${{error}}`);
        fetch("/answer", {{ method: "POST", body: JSON.stringify(answer) }});
      }};
    </script>"""
    contents = {"/": frame.encode(), "/page": page.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/wait":
                there.wait(40)
            content = contents.get(self.path, b"")
            self.send_response(200 if content else 204)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            answers.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()
            there.set()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium("--dump-dom", f"http://127.0.0.1:{server.server_port}/", profile=folder / "profile")
        server.shutdown()
    return json.loads(answers[0])


def test_test_samples_are_answered_as_by_the_runtime(
    report_path: Path, workspace: Any, made: Demo, tmp_path: Path
) -> None:
    found = tried(
        report_path,
        tmp_path,
        """
        await ready();
        const texts = (id) => [...at(id).querySelectorAll("div")].map((line) => line.textContent);
        return [...at("samples").children].map((button) => {
          button.click();
          return [at("state").textContent, texts("int8"), texts("float")];
        });
        """,
    )
    data: DataSet = workspace.data
    places = data.different(12)
    session = open_session(workspace.path("tflite", "int8"), runtime="tflm")
    values = predict(session, data.inputs(data.test.images[places]))
    wanted = []
    for place, answer in zip(places, values, strict=True):
        order = np.argsort(-answer, kind="stable")
        best = [f"{label}{answer[label]:.3f}" for label in order]
        recorded = [place % 10, *(label for label in range(10) if label != place % 10)]
        wanted.append(
            [
                f"Test sample {place}, labelled {data.test.labels[place]}.",
                best,
                [f"{label}{'1.000' if label == place % 10 else '0.000'}" for label in recorded],
            ]
        )
    assert found == wanted


DRAW = """
  await ready();
  const [pad, box] = [at("pad"), at("pad").getBoundingClientRect()];
  const send = (kind, [x, y]) => pad.dispatchEvent(new window.PointerEvent(kind,
    { bubbles: true, clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
  const line = (points) => {
    send("pointerdown", points[0]);
    points.slice(1).forEach((point) => send("pointermove", point));
    send("pointerup", points[points.length - 1]);
  };
  %s
  const drawn = [at("state").textContent, at("int8").querySelector("span").textContent, at("float").textContent];
  at("clear").click();
  return [drawn, [at("state").textContent, at("int8").textContent, at("float").textContent]];
"""


@pytest.mark.parametrize(
    ("digit", "points"),
    [
        ("1", [[0.55, 0.2], [0.5, 0.5], [0.45, 0.8]]),
        ("7", [[0.3, 0.25], [0.5, 0.25], [0.7, 0.25], [0.6, 0.5], [0.5, 0.8]]),
    ],
)
def test_a_drawn_digit_is_recognised(report_path: Path, digit: str, points: Any, tmp_path: Path) -> None:
    (state, answer, float_answer), cleared = tried(report_path, tmp_path, DRAW % f"line({points});")
    assert (state, answer) == ("Drawn.", digit)
    assert float_answer.startswith("Float answers are recorded for test samples only")
    assert cleared == ["Nothing is drawn.", "", ""]


def test_the_policy_admits_these_scripts_alone(report_path: Path, tmp_path: Path) -> None:
    """Under a policy without WebAssembly, the same page says so; and nothing is fetched or said on the console."""
    html = report_path.read_text()
    assert re.search(r"script-src 'sha256-[^']+' 'sha256-[^']+' 'wasm-unsafe-eval'; style-src", html)
    assert noise(report_path, tmp_path / "own") == ([], [])
    strict = tmp_path / "strict.html"
    strict.write_text(html.replace(" 'wasm-unsafe-eval'", ""))
    said = tried(strict, tmp_path, 'await ready(); return at("state").textContent;')
    assert said.startswith("The model cannot be run here: ")


def test_what_the_section_says_and_how_large_it_is(made: Demo, report_path: Path, tmp_path: Path) -> None:
    html = report_path.read_text()
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    without = write(a_report(), tmp_path)[-1].read_text()
    said = re.search(r"This section is (\d+) KiB of the page", html)
    assert said is not None
    assert abs((len(html) - len(without)) / 1024 - int(said[1])) < 5
    assert int(said[1]) < 200, "of the reference CNN"
    assert "digits-int8.tflite runs in this page" in html
    assert "Try the model" not in without


def test_the_reason_takes_the_place_of_the_model(tmp_path: Path) -> None:
    html = write(a_report(), tmp_path, "clang <is> missing.")[-1].read_text()
    assert "<p>Not in this report: clang &lt;is&gt; missing.</p>" in html
    assert html.count("<script>") == 1
    assert "wasm-unsafe-eval" not in html


def test_only_signs_on_black_are_drawn(workspace: Any, floats: Any, made: Demo) -> None:
    def draws(**changes: Any) -> bool:
        data = dataclasses.replace(workspace.data, **changes)
        return '"draws": true' in demo(workspace.path("tflite", "int8"), data, floats).script

    test = workspace.data.test
    assert '"draws": true' in made.script
    assert not draws(class_names=tuple(f"class {number}" for number in range(10)))
    assert not draws(test=dataclasses.replace(test, images=255 - test.images))


def test_names_cannot_end_the_script(workspace: Any, floats: Any) -> None:
    data = dataclasses.replace(workspace.data, class_names=("</script>", *map(str, range(1, 10))))
    text = demo(workspace.path("tflite", "int8"), data, floats).script
    assert "</script>" not in text
    assert "labelled \\u003c/script>" in text


def test_what_is_too_large_for_a_page_is_said(workspace: Any, floats: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = workspace.path("tflite", "int8")
    with monkeypatch.context() as patch:
        patch.setattr("edgecnn.report.demo._MOST_MODEL_BYTES", 100 * 1024)
        with pytest.raises(
            UnsupportedError, match=r"digits-int8.tflite has 0.1 MiB, report.html takes up to 0; edgecnn"
        ):
            demo(model, workspace.data, floats)
    monkeypatch.setattr("edgecnn.report.demo._MOST_VALUES", 9)
    with pytest.raises(UnsupportedError, match=r"one output with up to 9 values; digits-int8.tflite has 10"):
        demo(model, workspace.data, floats)
