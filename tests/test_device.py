"""A bundle measured on a device: over a real ssh to a real sshd on this machine, and over an adb that only looks so."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import FinishedRun
from planted import plant
from tools import need

from edgecnn import cli, device
from edgecnn.bundle import make_bundle
from edgecnn.device import PYTHONS, Adb, Ssh, bench_on, wheels
from edgecnn.device.transport import attended, execute
from edgecnn.errors import ConfigError, DeviceError, RecordError
from edgecnn.measure.baseline import shipped_baselines
from edgecnn.models import architecture, mnist_cnn
from edgecnn.records import Report, Result, from_json, to_json

pytestmark = pytest.mark.slow

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
QUICK = ("--seconds", "0.05", "--cold", "1")
PYTHON = sys._base_executable  # type: ignore[attr-defined]
# A name that no line of shell gets away with unquoted.
HOME = "home of o'neil $(touch evil) `touch evil`"


@pytest.fixture(scope="module")
def bundle(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "the 'best' bundle;.zip"
    make_bundle(finished_run.folder, path, data=str(finished_run.data_file), images=50)
    return path


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def wait_for(what: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def results(report: Report) -> list[Result]:
    assert all(isinstance(row, Result) for row in report.rows), report.rows
    return [row for row in report.rows if isinstance(row, Result)]


# ------------------------------------------------------------------------------------------------------ a real ssh


class Machine:
    """A device: this machine, reached as ``device`` over ssh, with a home, a PATH and settings of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / HOME
        self.marker = plant(self.home)
        self.folder = self.home / ".cache" / "edgecnn" / "device"
        self.bin = folder / "bin"
        script(self.bin / "python3", f'exec {shlex.quote(PYTHON)} "$@"')

    def runs(self) -> list[Path]:
        """Folders of measurements."""
        return list(self.folder.glob("run-*"))

    def processes(self) -> list[str]:
        """Command lines of what runs on it for edgecnn."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it ended meanwhile
                continue
            if str(self.folder) in " ".join(words) and not Path(words[0]).name.startswith("ssh"):
                found.append(" ".join(words))
        return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A sshd of its own on a free port of the loopback, with its own keys; first in PATH, an ssh that knows it."""
    need("ssh")
    if SSHD is None:
        need("sshd")
    folder = tmp_path_factory.mktemp("sshd")
    machine = Machine(folder)
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # A clean environment, and a pip that reaches no index: every wheel must come from the desk.
    clean = {"HOME": str(machine.home), "PATH": f"{machine.bin}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
    settings = " ".join(shlex.quote(f"{name}={value}") for name, value in clean.items())
    clear = f"exec env -i {settings} PIP_CONFIG_FILE=/dev/null"
    shell = script(folder / "shell", f'cd {shlex.quote(str(machine.home))}\n{clear} sh -c "$SSH_ORIGINAL_COMMAND"')
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nForceCommand {shell}\n"
    )
    known = (folder / "host.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {known}\n")
    (folder / "client").write_text(
        f"Host device\n  Port {port}\nHost closed\n  Port 1\n"
        f"Host keyless\n  Port {port}\n  IdentityFile {folder}/stranger\n"
        f"Host unknown\n  Port {port}\n  UserKnownHostsFile /dev/null\n"
        f"Host * !keyless\n  IdentityFile {folder}/user\nHost *\n  HostName 127.0.0.1\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking yes\n"
    )
    script(folder / "desk" / "ssh", f'exec {shutil.which("ssh")} -F {folder}/client "$@"')
    Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([SSHD or "sshd", "-D", "-e", "-f", str(folder / "config")], stderr=log)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder / 'desk'}:{before}"
    try:
        wait_for(lambda: b"listening" in (folder / "log").read_bytes() or server.poll() is not None)
        assert server.poll() is None, (folder / "log").read_text()
        yield machine
    finally:
        os.environ["PATH"] = before
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def measured(
    machine: Machine, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, subprocess.CompletedProcess[str], Path]:
    """The first measurement on the device, by the command; edgecnn and all it needs are brought there."""
    out = tmp_path_factory.mktemp("out") / "results.json"
    here = tmp_path_factory.mktemp("here")
    marker = plant(here)
    line = [sys.executable, "-P", "-m", "edgecnn", "bench", str(bundle), "--ssh", "device", *QUICK]
    line += ["--threads", "1,2", "--seed", "7", "--out", str(out)]
    done = subprocess.run(line, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not marker.exists(), marker.read_text()
    return from_json(out.read_bytes(), Report, out), done, out


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """``edgecnn bench`` with ``arguments``."""
    line = [sys.executable, "-m", "edgecnn", "bench", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


Measured = tuple[Report, "subprocess.CompletedProcess[str]", Path]


def test_a_bundle_is_measured_over_ssh(measured: Measured, machine: Machine) -> None:
    report, done, _ = measured
    rows = results(report)
    assert sorted({row.artifact.file for row in rows}) == [
        f"mnist_cnn-{scheme}.{format}" for scheme in ("float32", "int8") for format in ("onnx", "tflite")
    ]
    assert {row.measurement.threads for row in rows} == {1, 2}
    assert (report.data, report.test_images, report.seed) == ("digits", 50, 7)
    assert all(row.accuracy is not None and row.accuracy.total == 50 for row in rows)
    assert "int8.tflite" in done.stdout  # the report
    told = re.search(r"^preparing: done in .*\n(.* so far.*\n)*measuring: done in", done.stderr, re.MULTILINE)
    assert told, done.stderr
    assert machine.runs() == []
    assert machine.processes() == []


def test_nothing_in_the_home_of_the_device_is_run(measured: Measured, machine: Machine) -> None:
    assert not machine.marker.exists(), machine.marker.read_text()


def test_the_results_say_where_they_were_measured(measured: Measured) -> None:
    report, _, _ = measured
    assert report.environment.cores == os.cpu_count()
    # Both are one machine here; what is installed tells them apart.
    assert {"edgecnn", "numpy", "onnxruntime"} <= set(report.environment.versions)
    assert "tensorflow" not in report.environment.versions


def test_the_device_needs_little(measured: Measured, machine: Machine) -> None:
    packages = {path.name for path in machine.folder.glob("venv/lib/python3.*/site-packages/*")}
    assert {"edgecnn", "onnxruntime", "ai_edge_litert"} <= packages
    assert not packages & {"tensorflow", "keras", "PIL", "matplotlib"}
    assert sorted(path.name.partition("-")[0] for path in machine.folder.iterdir()) == ["venv"]
    assert not list(machine.home.parent.rglob("evil"))


def test_the_venv_serves_again(measured: Measured, machine: Machine, bundle: Path, tmp_path: Path) -> None:
    (mark,) = machine.folder.glob("venv/edgecnn-*")
    before = mark.stat()
    done = command(bundle, *QUICK, "--json", "--ssh", "device")
    assert done.returncode == 0, done.stderr
    assert len(results(from_json(done.stdout.encode(), Report, "stdout"))) == 4
    assert mark.stat() == before


def test_another_edgecnn_is_installed_anew(
    measured: Measured, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = device.own_wheel

    def other(folder: Path) -> Path:
        wheel = real(folder)
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr(zipfile.ZipInfo("edgecnn/other.txt"), "changed")
        return wheel

    def stop(line: str) -> None:
        made.append(line)
        raise InterruptedError

    monkeypatch.setattr(device, "own_wheel", other)
    transport = Ssh("device")
    found = device._find_python(transport)
    monkeypatch.setattr(transport, "ask", stop)
    with pytest.raises(InterruptedError):
        device._install(transport, found)
    assert "mkdir -p" in made[0]


def test_failed_rows_are_results(measured: Measured, bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    from test_bundle import MODELS, declared, members_of, write

    members = members_of(bundle)
    del members[f"{MODELS[0]}.json"]
    write(broken, declared({**members, MODELS[0]: b"no model"}))
    done = command(broken, "--ssh", "device", *QUICK, "--json")
    assert done.returncode == 1
    assert "edgecnn: mnist_cnn-float32.tflite (bench)" in done.stderr
    assert len(from_json(done.stdout.encode(), Report, "stdout").rows) == 4


def test_wrong_options_are_told_before_anything_travels(measured: Measured, machine: Machine, bundle: Path) -> None:
    done = command(bundle, "--ssh", "device", "--seconds", "-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgecnn: seconds must be positive")
    assert machine.runs() == []


def test_what_the_device_refuses_is_told(measured: Measured, machine: Machine, bundle: Path) -> None:
    with pytest.raises(DeviceError, match="edgecnn bench ended on device with exit status 2; see above"):
        bench_on(Ssh("device"), bundle, ["--seconds", "-1"])
    assert machine.runs() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_here_ends_there(measured: Measured, machine: Machine, bundle: Path, how: signal.Signals) -> None:
    line = [sys.executable, "-m", "edgecnn", "bench", str(bundle), "--ssh", "device", "--threads", "1,2,3"]
    here = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: sum("bench" in line for line in machine.processes()) >= 2)  # the attendant, and what it runs
    time.sleep(1.0)
    here.send_signal(how)
    _, err = here.communicate(timeout=60)
    if how == signal.SIGINT:
        assert here.returncode == 130, err
        assert err.endswith("edgecnn: interrupted\n")
        assert machine.runs() == []
    wait_for(lambda: machine.processes() == [])
    for run in machine.runs():
        shutil.rmtree(run)


def test_what_lost_connections_left_is_removed(measured: Measured, machine: Machine, bundle: Path) -> None:
    old, new = machine.folder / "run-old", machine.folder / "run-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "bundle.zip").touch()
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    try:
        assert command(bundle, *QUICK, "--ssh", "device").returncode == 0
        assert machine.runs() == [new]
    finally:
        shutil.rmtree(new)


def test_what_is_no_report_is_not_taken_for_one(
    measured: Measured, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ssh, "get", lambda self, path: b"{}")
    with pytest.raises(RecordError, match="the result of device is not a valid Report file"):
        bench_on(Ssh("device"), bundle, [*QUICK])


@pytest.mark.parametrize(
    ("host", "match"),
    [
        ("closed", "cannot reach closed over ssh: .*Connection refused; edgecnn asks for no password"),
        ("keyless", r"cannot reach keyless over ssh: .*Permission denied"),
        ("unknown", "cannot reach unknown over ssh: Host key verification failed"),
    ],
)
def test_an_ssh_that_would_ask_is_an_error(machine: Machine, bundle: Path, host: str, match: str) -> None:
    with pytest.raises(DeviceError, match=match):
        bench_on(Ssh(host), bundle)


def test_a_file_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    transport = Ssh("device")
    with pytest.raises(DeviceError, match=r"cat failed: .*No such file"):
        transport.get("/no such/file")
    with pytest.raises(DeviceError, match="cannot copy files to device: "):
        transport.put({"a": script(tmp_path / "a", "")}, "/no such/folder")


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch evil", "-l root", "a b", "host\n", "host\x1b"])
def test_hosts_that_are_none(host: str, bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ssh takes \[user@\]host"):
        Ssh(host)
    done = command(bundle, f"--ssh={host}")
    assert done.returncode == 2
    assert ("--ssh takes" if host.isprintable() else "contains a control character") in done.stderr


def test_a_host_never_meets_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    script(tmp_path / "bin" / "ssh", f'for word; do printf "%s\\0" "$word"; done > {tmp_path}/words; exit 255')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    host = "user@host;touch${IFS}evil`touch${IFS}evil`"
    with pytest.raises(DeviceError, match="cannot reach user@host;touch"):
        bench_on(Ssh(host), bundle)
    words = (tmp_path / "words").read_text().split("\0")
    assert "BatchMode=yes" in words
    assert words[words.index("--") + 1] == host
    assert not list(tmp_path.rglob("evil"))


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="the program ssh is not installed here"):
        Ssh("device")
    with pytest.raises(DeviceError, match="the program adb is not installed here"):
        Adb()


# --------------------------------------------------------------------------------------------------- adb, a fake

# Records its arguments, then does what adb would with a device whose shell runs here.
FAKE_ADB = """\
{ for word; do printf '%s\\0' "$word"; done; printf '\\n'; } >> "$FAKE_LOG"
if [ "$1" = -s ]; then
    [ "$2" = "$FAKE_SERIAL" ] || { echo "adb: device '$2' not found" >&2; exit 1; }
    shift 2
fi
[ -n "$FAKE_SERIAL" ] || { echo "adb: no devices/emulators found" >&2; exit 1; }
what=$1; shift
case $what in
    shell) exec env -i HOME="$FAKE_HOME" PATH="$FAKE_PATH" PIP_NO_INDEX=1 PIP_FIND_LINKS="$FAKE_WHEELS" sh -c "$*" ;;
    push) cp -- "$1" "$2" ;;
    *) echo "adb: unknown command $what" >&2; exit 1 ;;
esac"""


class Phone:
    """What the fake adb finds: a home and a PATH; and the calls it was given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.bin, self.log = folder / HOME, folder / "phone", folder / "log"
        self.marker = plant(self.home)
        self.bin.mkdir()
        self.log.touch()
        script(folder / "desk" / "adb", FAKE_ADB)
        for name, value in {
            "PATH": f"{folder / 'desk'}:{os.environ['PATH']}",
            "FAKE_LOG": self.log,
            "FAKE_HOME": self.home,
            "FAKE_PATH": self.bin,
            "FAKE_SERIAL": "0123abc",
            "FAKE_WHEELS": "",
        }.items():
            monkeypatch.setenv(name, str(value))
        for tool in ("sh", "cat", "find", "mkdir", "mktemp", "rm", "test", "touch", "env"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)

    def calls(self) -> list[list[str]]:
        return [line.rstrip("\0").split("\0") for line in re.split(r"(?<=\0)\n", self.log.read_text()) if line]

    def python(self, **said: object) -> None:
        """Give it a python3 that answers the probe with ``said``."""
        answer = {
            "python": "/usr/bin/python3",
            "version": [3, 11],
            "wide": True,
            "machine": "aarch64",
            "libc": "glibc",
            "libc_version": "2.36",
            "venv": True,
            "folder": str(self.home),
        }
        script(self.bin / "python3", f"echo noise; echo {shlex.quote('edgecnn-device ' + json.dumps(answer | said))}")


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    return Phone(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for an index that a device reaches: a folder with every wheel edgecnn needs there."""
    folder = tmp_path_factory.mktemp("index")
    probe = subprocess.run([PYTHON, "-c", device._PROBE], capture_output=True, text=True, check=True).stdout
    found = from_json(probe.removeprefix("edgecnn-device ").encode(), device._Python, "the probe")
    minor = int(found.libc_version.split(".")[1])
    wheel = wheels.own_wheel(folder)
    wheels.download([wheel], folder, python=found.version, machine=found.machine, glibc=(2, minor))
    return folder


def test_a_bundle_is_measured_over_adb(
    phone: Phone, bundle: Path, index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(phone.bin / "python3", f'exec {shlex.quote(PYTHON)} "$@"')
    monkeypatch.setenv("FAKE_WHEELS", str(index))
    monkeypatch.setattr(device, "download", lambda *_, **__: pytest.fail("this device has an index of its own"))
    report = bench_on(Adb("0123abc"), bundle, [*QUICK])
    assert len(results(report)) == 4
    assert report.test_images == 50
    calls = phone.calls()
    assert {tuple(call[:2]) for call in calls} == {("-s", "0123abc")}
    assert [call[2] for call in calls if call[2] != "shell"] == ["push", "push"]
    assert [Path(call[4]).name for call in calls if call[2] == "push"] == [
        "edgecnn-0.1.0-py3-none-any.whl",
        "bundle.zip",
    ]
    assert all(len(call) == 4 for call in calls if call[2] == "shell")  # one line each, quoted for the shell there
    (packages,) = (phone.home / ".cache/edgecnn/device").glob("venv/lib/python3.*/site-packages")
    assert (packages / "onnxruntime").is_dir()
    assert not list((phone.home / ".cache/edgecnn/device").glob("run-*"))
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"version": [3, 9]}, r"has Python 3\.9; edgecnn needs Python 3\.11 to 3\.13"),
        ({"version": [3, 14]}, r"has Python 3\.14; edgecnn needs"),
        ({"wide": False}, "has 32 bits; LiteRT and ONNX Runtime come as wheels for 64-bit Linux with glibc"),
        ({"libc": "", "libc_version": ""}, "has the C library musl or bionic; LiteRT"),
        ({"libc": "libc"}, "has the C library libc; LiteRT"),
        ({"libc_version": "2"}, "says that its glibc is '2'; a version such as 2.36 is needed"),
        ({"libc_version": "2.x"}, "says that its glibc is '2.x'; a version such as 2.36 is needed"),
        ({"venv": False}, "cannot make a venv; on Debian: apt install python3-venv"),
    ],
)
def test_pythons_that_do_not_serve(phone: Phone, said: dict[str, object], match: str) -> None:
    phone.python(**said)
    with pytest.raises(DeviceError, match=match):
        device._find_python(Adb())


def test_another_python_beside_the_first_serves(phone: Phone) -> None:
    phone.python(version=[3, 12], python="/opt/python3.12")
    (phone.bin / "python3").rename(phone.bin / "python3.12")
    phone.python(version=[3, 10])
    assert device._find_python(Adb()).python == "/opt/python3.12"


def test_a_device_without_python_says_what_to_do(phone: Phone, bundle: Path) -> None:
    done = command(bundle, "--adb", "0123abc")
    assert done.returncode == 1
    assert re.search(
        r"edgecnn: adb device 0123abc has no python3 in its shell's reach; edgecnn needs Python 3\.11 to 3\.13; "
        r"Android brings none: put a Linux into Termux and use --ssh \(docs/device\.md\)\n$",
        done.stderr,
    ), done.stderr
    assert phone.calls()[0][:3] == ["-s", "0123abc", "shell"]


def test_an_answer_that_is_none(phone: Phone) -> None:
    script(phone.bin / "python3", "echo edgecnn-device nonsense")
    with pytest.raises(RecordError, match="the answer of the adb device is not a valid"):
        device._find_python(Adb())


def test_no_device_and_the_wrong_one(phone: Phone, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="cannot reach adb device other: adb: device 'other' not found"):
        bench_on(Adb("other"), bundle)
    monkeypatch.setenv("FAKE_SERIAL", "")
    done = command(bundle, "--adb")
    assert done.returncode == 1
    assert (
        "cannot reach the adb device: adb: no devices/emulators found; see what this lists: adb devices" in done.stderr
    )
    assert phone.calls()[-1][0] == "shell"  # without -s


@pytest.mark.parametrize("serial", ["-d", "a b", "a;b", "a\n"])
def test_serials_that_are_none(phone: Phone, serial: str, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="--adb takes a serial number"):
        Adb(serial)
    assert command(bundle, f"--adb={serial}").returncode == 2
    assert phone.calls() == []


def test_a_file_that_cannot_be_pushed(phone: Phone, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot copy a to the adb device: "):
        Adb().put({"a": script(tmp_path / "a", "")}, "/no such/folder")


# ------------------------------------------------------------------------------------------ the command line, parts


def test_senseless_command_lines(bundle: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = command(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        return done.stderr

    assert "both name a device; give only one" in refused(bundle, "--ssh", "a", "--adb")
    assert "must be the only file" in refused(bundle, bundle)
    assert "must be the only file" in refused("model.tflite", bundle)
    assert "contains its own test images" in refused(bundle, "--data", "none.npz")  # told before it is looked for
    assert "contains its own test images" in refused(bundle, "--input-range", "0,1")
    assert "measures a bundle only" in refused("model.tflite", "--ssh", "device")


def test_a_bad_bundle_never_travels(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"bad")
    done = command(tmp_path / "bad.zip", "--adb", "0123abc")
    assert done.returncode == 1
    assert "is not a valid bundle: File is not a zip file" in done.stderr
    assert phone.calls() == []


def test_a_baseline_of_another_model_is_told_before_anything_travels(
    phone: Phone, bundle: Path, tmp_path: Path
) -> None:
    shipped, *_ = shipped_baselines(architecture(mnist_cnn()))
    (tmp_path / "gpu.json").write_bytes(to_json(shipped.replace(model="other.keras", architecture="0" * 64)))
    done = command(bundle, "--baseline", tmp_path / "gpu.json", "--adb", "0123abc")
    assert done.returncode == 2
    assert "gpu.json is a baseline of other.keras" in done.stderr
    assert phone.calls() == []


def test_options_of_measuring_go_along() -> None:
    def forwarded(*arguments: str) -> list[str]:
        with cli.cli.commands["bench"].make_context("bench", list(arguments)):
            return cli.bench._forwarded()

    assert forwarded("b.zip", "--ssh", "pi", "--out", "r.json", "--json", "--baseline", "b.json") == []
    given = ["--threads", "1,2", "--batch", "1,8", "--runtimes", "litert,onnxruntime", "--seconds", "0.5"]
    given += ["--cold", "2", "--seed", "3"]
    assert forwarded("b.zip", *given, "--adb") == given


@pytest.mark.parametrize("status", [0, 3])
def test_the_attendant_passes_the_exit_status_on(status: int) -> None:
    answer = execute(["sh", "-c", attended(sys.executable, ["sh", "-c", f"echo out; echo err >&2; exit {status}"])])
    assert answer == (status, b"out\n", "err\n")


def test_the_attendant_kills_what_does_not_listen(tmp_path: Path) -> None:
    deaf = f"import signal, time; signal.signal(2, 1); open({str(tmp_path / 'up')!r}, 'w'); time.sleep(600)"
    line = attended(sys.executable, [sys.executable, "-c", deaf])
    process = subprocess.Popen(["sh", "-c", f"exec {line}"], stdin=subprocess.PIPE)
    wait_for((tmp_path / "up").exists)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 256 - signal.SIGKILL


def test_our_wheel_is_the_package_and_its_metadata(tmp_path: Path) -> None:
    wheel = wheels.own_wheel(tmp_path)
    content = wheel.read_bytes()
    assert wheels.own_wheel(tmp_path).read_bytes() == content
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = archive.read("edgecnn-0.1.0.dist-info/RECORD").decode().splitlines()
        for line in record[:-1]:
            name, digest, size = line.rsplit(",", 2)
            assert digest == f"sha256={wheels._digest(archive.read(name))}"
            assert int(size) == archive.getinfo(name).file_size
    package = Path(device.__file__).parents[1]
    code = [f"edgecnn/{path.relative_to(package)}" for path in package.rglob("*") if path.suffix in (".py", ".typed")]
    assert {*code, "edgecnn/kits/cortex_m/Makefile", "edgecnn/kits/linux/run.py"} <= set(names)
    assert {f"edgecnn-0.1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt")} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith("direct_url.json")]


def test_a_machine_without_wheels(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"no wheels here for Python 3\.11 on armv7l with glibc 2\.36: No matching dist"
    ):
        wheels.download([wheels.own_wheel(tmp_path)], tmp_path, python=(3, 11), machine="armv7l", glibc=(2, 36))


def test_the_pythons_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (first, *_, last) = PYTHONS
    assert project["requires-python"] == f">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"
