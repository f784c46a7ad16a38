"""The kit for browsers: TFLM's bytes in Node and Chromium, and a page that draws, takes a picture and films."""

import base64
import http.server
import io
import json
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from PIL import Image
from test_report import chromium

from edgecnn import artifacts
from edgecnn.embed import embed
from edgecnn.errors import EmulationError
from edgecnn.runtimes import open_session, predict
from edgecnn.runtimes.quantized_io import from_outputs, to_inputs

pytestmark = pytest.mark.slow


def node(*arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    tools.need("node")
    command = ["node", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def kit(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "kit"
    embed(workspace.path("tflite", "int8"), "web", folder, str(workspace.data_file))
    return folder


def copied(kit: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in kit.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_node_gives_the_bytes_of_tflite_micro(kit: Path) -> None:
    done = node("self_test.js", folder=kit)
    assert done.stdout == "ok: 4 of 4 golden inputs, every output byte as in TensorFlow Lite Micro\n"
    assert done.returncode == 0


def test_the_whole_kit_of_the_reference_cnn_is_small(kit: Path) -> None:
    assert sum(file.stat().st_size for file in kit.iterdir()) <= 200_000


def test_a_changed_weight_is_noticed(kit: Path, tmp_path: Path) -> None:
    folder = copied(kit, tmp_path / "kit")
    text = (folder / "model.js").read_text()
    found = re.search(r'wasm = "([^"]+)"', text)
    assert found is not None
    wasm = bytearray(base64.b64decode(found[1]))
    inside = slice(len(wasm) // 4, len(wasm) // 2, 16)  # in the weights of the first dense layer, most of the file
    wasm[inside] = bytes(byte ^ 0x40 for byte in wasm[inside])
    (folder / "model.js").write_text(text.replace(found[1], base64.b64encode(wasm).decode()))
    done = node("self_test.js", folder=folder)
    assert done.returncode == 1
    assert re.match(r"wrong: only [0-3] of 4 golden inputs give the bytes of TensorFlow Lite Micro", done.stderr)


def test_raw_pixels_are_quantised_as_in_python(kit: Path, workspace: Any) -> None:
    artifact = artifacts.load(workspace.path("tflite", "int8"))
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    script = """
      require("./model.js");
      edgecnn.load().then((model) => {
        const found = JSON.parse(process.argv[1]).map((image) => {
          const input = model.quantize([image]);
          const output = model.run(input);
          return [Array.from(input), Array.from(output), Array.from(model.dequantize(output)[0])];
        });
        console.log(JSON.stringify(found));
      });"""
    done = node("-e", script, json.dumps(images.reshape(3, -1).tolist()), folder=kit)
    found = json.loads(done.stdout)
    wanted = to_inputs(workspace.data.inputs(images), artifact.inputs)
    np.testing.assert_array_equal(np.int8([one for one, _, _ in found]).reshape(wanted.shape), wanted)
    outputs = from_outputs(np.int8([two for _, two, _ in found]), artifact.outputs)
    np.testing.assert_array_equal(np.float32([three for _, _, three in found]), outputs)


def test_the_wrong_number_of_values_is_an_error(kit: Path) -> None:
    script = (
        'require("./model.js"); edgecnn.load().then((model) => model.run([1, 2])).catch((e) => console.log(`${e}`));'
    )
    assert node("-e", script, folder=kit).stdout == "RangeError: the model takes 784 values, got 2\n"


@pytest.mark.parametrize(
    ("threshold", "value", "shown"),
    [
        (0.5, 0.04, ["no person 0.960", "person 0.040"]),
        (0.5, 0.9, ["person 0.900", "no person 0.100"]),
        (0.0, -2.5, ["no person 2.500", "person -2.500"]),
    ],
)
def test_both_classes_of_a_single_output_are_shown(kit: Path, threshold: float, value: float, shown: list[str]) -> None:
    script = f"""
      const made = () => ({{children: [], style: {{}}, appendChild(one) {{ this.children.push(one); return one; }}}});
      globalThis.document = {{createElement: made}};
      require("vm").runInThisContext(require("fs").readFileSync("draw.js", "utf8"));
      const about = {{labels: ["no person", "person"], threshold: {threshold}, ranked: true}};
      const show = (...lines) => console.log(JSON.stringify(lines.slice(0, -1).map(
        ({{children: [name, bar, number]}}) => `${{name.textContent}} ${{number.textContent}}`)));
      showAnswers({{replaceChildren: show}}, about, [{value}], "");"""
    assert json.loads(node("-e", script, folder=kit).stdout) == shown


def page(kit: Path, folder: Path, script: str, *flags: str) -> str:
    """The text of the page's ``state`` and ``answers`` in Chromium, as soon as ``script`` changed them.

    A picture that does not come from its server until then keeps the page loading, however busy the machine is.
    """
    answered = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answered.wait(40) if self.path == "/wait" else answered.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    copied(kit, folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        index = folder / "index.html"
        index.write_text(
            index.read_text()
            + f"""<script>
            document.body.appendChild(new Image()).src = "{place}/wait";
            const said = () => ["state", "answers"].map((name) => document.getElementById(name).textContent).join();
            let before = null;
            const asked = setInterval(() => {{
              if (document.getElementById("try").hidden) return;
              if (before === null) {{
                before = said();
                {script}
              }}
              if (said() !== before) {{
                clearInterval(asked);
                fetch("{place}/answered", {{mode: "no-cors"}});
              }}
            }}, 100);
            </script>"""
        )
        dom = chromium("--dump-dom", *flags, index.as_uri(), profile=folder / "profile")
        server.shutdown()
    assert answered.is_set()
    found = [
        re.search(f'id="{name}"[^>]*>(.*?)</{tag}>\n', dom, re.DOTALL)
        for name, tag in (("state", "p"), ("answers", "div"))
    ]
    return " | ".join(re.sub(r"<[^>]+>", " ", one[1]).strip() for one in found if one is not None)


def test_a_drawn_digit_is_recognised(kit: Path, tmp_path: Path) -> None:
    draw = """
      const pad = document.getElementById("pad"), box = pad.getBoundingClientRect();
      const send = (kind, x, y) => pad.dispatchEvent(new PointerEvent(kind,
        {bubbles: true, clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
      const line = (points) => {
        send("pointerdown", ...points[0]);
        points.slice(1).forEach((point) => send("pointermove", ...point));
        send("pointerup", ...points[points.length - 1]);
      };
      %s"""
    said = page(kit, tmp_path / "one", draw % "line([[0.55, 0.2], [0.5, 0.5], [0.45, 0.8]]);")
    assert said.startswith("ok: 4 golden inputs, every output byte as in TensorFlow Lite Micro | 1 ")
    assert "in WebAssembly" in said
    seven = "line([[0.3, 0.25], [0.5, 0.25], [0.7, 0.25], [0.6, 0.5], [0.5, 0.8]]);"
    assert " | 7 " in page(kit, tmp_path / "seven", draw % seven)


def test_a_dropped_picture_is_classified_as_here(kit: Path, workspace: Any, tmp_path: Path) -> None:
    images = workspace.data.test.images[:3]
    session = open_session(workspace.path("tflite", "int8"), runtime="tflm")
    classes = predict(session, workspace.data.inputs(images)).argmax(axis=1)
    for number, (image, wanted) in enumerate(zip(images, classes, strict=True)):
        made = io.BytesIO()
        Image.fromarray(image[..., 0]).save(made, "PNG")
        drop = f"""
          const bytes = Uint8Array.from(atob("{base64.b64encode(made.getvalue()).decode()}"), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "digit.png", {{type: "image/png"}}));
          dispatchEvent(new DragEvent("drop", {{dataTransfer: transfer}}));"""
        assert f" | {wanted} " in page(kit, tmp_path / str(number), drop)


def test_a_file_that_is_no_picture_is_said(kit: Path, tmp_path: Path) -> None:
    drop = """
      const transfer = new DataTransfer();
      transfer.items.add(new File(["text"], "<b>notes.txt"));
      dispatchEvent(new DragEvent("drop", {dataTransfer: transfer}));"""
    assert "&lt;b&gt;notes.txt cannot be read as a picture" in page(kit, tmp_path / "page", drop)


def test_the_camera_is_classified(kit: Path, tmp_path: Path) -> None:
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    assert "in WebAssembly" in page(kit, tmp_path / "page", 'document.getElementById("camera").click();', *flags)


def test_without_a_compiler_the_packages_are_named(
    workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None)
    with pytest.raises(EmulationError, match=r"needs clang and wasm-ld \(Debian packages: clang, lld\)"):
        embed(workspace.path("tflite", "int8"), "web", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()
