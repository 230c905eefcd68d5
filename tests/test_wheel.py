"""The wheel: what is in it, and that it works alone, outside the repository, with each extra.

Building needs hatchling. Installing needs a package registry and uv: `make wheel` names it in SRBLOCK_UV, and UV_PYTHON
chooses another Python.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import srblock

ROOT = Path(__file__).parents[1]
UV = os.environ.get("SRBLOCK_UV", "")
EXTRAS = ("experiments", "cluster", "export", "tensorboard", "hub")
DIGITS = "--data digits --image-size 16 --epochs 1"
# What each extra adds, tried after the quickstart in its folder; RUN is a finished run with a block.
ADDED = {
    "experiments": "srblock evaluate RUN",
    "cluster": f"srblock compare R8 'R8 + SR(M=2, P=8)' {DIGITS} --seeds 1 --executor ray",
    "export": "srblock export RUN net.onnx",
    "tensorboard": f"srblock train R8 {DIGITS} --seed 9 --tensorboard",
    "hub": "python -c \"import srblock; srblock.save_pretrained(srblock.load_run('RUN'), 'saved'); "
    "print(srblock.from_pretrained('saved'))\"",
}


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command as a stranger would, without what tells it of the repository; return what it says."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=inherited | (environment or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def build(kind: str, source: Path, folder: Path) -> Path:
    run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)], source)
    return next(folder.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def in_the_package() -> set[str]:
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    about = f"srblock-{srblock.__version__}.dist-info"
    wanted = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert {"srblock/py.typed", "srblock/report/page.css", "srblock/report/template.html"} < names
    assert names == in_the_package() | {f"{about}/{name}" for name in wanted}


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = message_from_string(archive.read(f"srblock-{srblock.__version__}.dist-info/METADATA").decode())
    needs = [re.split(r"[>=\[ ;]", need)[0] for need in about.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(needs) == ["numpy", "torch"]
    assert about["Version"] == srblock.__version__
    assert {*EXTRAS, "docs", "dev"} == set(about.get_all("Provides-Extra", []))
    assert about.get_payload() == (ROOT / "README.md").read_text()


def test_the_source_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = f"srblock-{srblock.__version__}"
    with tarfile.open(build("sdist", ROOT, tmp_path)) as archive:
        names = {name.removeprefix(f"{source}/") for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    beside = {"README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names == {f"src/{name}" for name in in_the_package()} | beside
    assert build("wheel", tmp_path / source, tmp_path / "again").read_bytes() == wheel.read_bytes()


# --- installed alone -------------------------------------------------------------------------------------------------

installs = pytest.mark.skipif(not UV, reason="needs a package registry: make wheel")


def installed(wheel: Path, folder: Path, extra: str = "") -> Path:
    """Install the wheel into a fresh environment; return the folder of its programs."""
    python = os.environ.get("UV_PYTHON") or sys.executable
    run([UV, "venv", "-q", "-p", python, "venv"], folder)
    run([UV, "pip", "install", "-q", "-p", "venv/bin/python", f"srblock{extra} @ {wheel.as_uri()}"], folder)
    return folder / "venv" / "bin"


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@installs
def test_core_alone(wheel: Path, tmp_path: Path) -> None:
    programs = installed(wheel, tmp_path)
    code = [code for code in examples("README.md") + examples("docs/block.md") if "torchvision" not in code]
    assert code, "what needs torch alone is shown somewhere"
    for snippet in code:
        run([str(programs / "python"), "-c", snippet], tmp_path)
    where = run([str(programs / "python"), "-c", "import srblock; print(srblock.__file__)"], tmp_path)
    assert where.startswith(str(tmp_path))
    bare = subprocess.run([programs / "srblock", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert bare.stderr.endswith('pip install "srblock[experiments]"\n')
    assert len(bare.stderr.splitlines()) == 1, bare.stderr


@installs
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_alone(extra: str, wheel: Path, tmp_path: Path) -> None:
    programs = installed(wheel, tmp_path, f"[{extra}]")
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SRBLOCK_CACHE": str(tmp_path / "cache")}
    for snippet in examples("README.md"):
        run(["python", "-c", snippet], tmp_path, path)
    quickstart = re.search(r"^\t\$\(BIN\)/(srblock compare .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert quickstart is not None
    assert "report.html" in run(shlex.split(quickstart[1]), tmp_path, path)
    trained = next((tmp_path / "out/runs").glob("r8-sr-*"))
    run(shlex.split(ADDED[extra].replace("RUN", f"out/runs/{trained.name}")), tmp_path, path)
    if extra == "tensorboard":
        assert list(tmp_path.glob("out/runs/*/tensorboard/*")), "event files"
