"""docs/using.md, from its first line of Python to its last, in one session."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli import invoke

from srblock.data import load

PAGE = Path(__file__).parents[1] / "docs" / "using.md"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # Image.open without with, as people write it
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    options = ("--data", "digits", "--image-size", 16, "--epochs", 1, "--out", "out")
    assert invoke("train", "R8 + SR(M=3, P=4)", *options).exit_code == 0
    Path("photos").mkdir()
    for number, image in enumerate(load("digits", image_size=16).test_images[:2]):
        Image.fromarray(image[0].numpy()).save(f"photos/{number}.png")
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 5
    names: dict[str, Any] = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"snippet {number}", "exec"), names)
    assert names["run"].predict(Image.open("photos/0.png"))[0].classes[0] in capsys.readouterr().out
    assert names["other"].layer3.sr.size == names["model"].layer3.sr.size == (4, 4)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "photos", "net.onnx", "saved", "mine"}
