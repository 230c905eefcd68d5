"""Exported networks compute what the runs compute, hold what they take, and are not there if they do not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scene_fixture import write_camvid
from test_cli import invoke
from torch import Tensor, nn

import srblock
from srblock.data import load
from srblock.runs import export as exporting
from srblock.runs import export_files
from srblock.runs.export import Export, export_run
from srblock.runs.export_check import Agreement, agreement
from srblock.runs.trained import TrainedRun, load_run
from srblock.training.segmentation import slide

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PLAIN, BLOCK, RESIZED = "R8", "R8 + SR(M=3, P=4)", "R8 + SR(M=3, P=4, resize=bilinear)"
TIMM = "timm/test_resnet + SR(M=3, P=4)"
DEEPLAB = "DLv3-R18 + SR(M=3, P=2)"
HERE = str(Path(srblock.__file__).parent).encode()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    for variant in (PLAIN, BLOCK, RESIZED, TIMM):
        done = invoke("train", variant, "--data", "digits", "--image-size", 16, "--epochs", 1, "--out", folder)
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a study of scenes, and the scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_camvid(folder / "camvid")
    data = ("--data", f"camvid:{folder / 'camvid'}", "--crop-size", "32x64", "--batch-size", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRBLOCK_WORKERS", "0")
        done = invoke("train", DEEPLAB, *data, "--epochs", 1, "--epoch-steps", 1, "--out", folder / "out")
    assert done.exit_code == 0, done.output
    return folder / "out", folder / "camvid"


def loaded(out: Path, variant: str) -> TrainedRun:
    """Load a run, with a memory so large that a network without it would be another."""
    run = load_run(out, variant=variant, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for block in srblock.blocks(run.model).values():
        values = torch.randn(block.memory.values.shape, generator=generator)
        block.memory.values.data.copy_(values)
    return run


def digits(count: int) -> Tensor:
    images = load("digits", image_size=16).test_images
    assert isinstance(images, Tensor)
    return images[:count]


def runtime(file: Path) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def asked(file: Path, images: np.ndarray) -> np.ndarray:
    (logits,) = runtime(file).run(["logits"], {"images": images})
    return np.asarray(logits)


# --- what is in the file ---------------------------------------------------------------------------------------------


def test_onnx_can_be_used_with_nothing_of_ours(out: Path, tmp_path: Path) -> None:
    """Images are prepared by what the metadata say, in NumPy, and asked in batches of several sizes."""
    run = loaded(out, BLOCK)
    done = export_run(run, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"], "one file, no weights beside it, no scraps"
    assert HERE not in (tmp_path / "net.onnx").read_bytes()
    onnx.checker.check_model(tmp_path / "net.onnx", full_check=True)
    held = runtime(tmp_path / "net.onnx").get_modelmeta().custom_metadata_map
    said = json.loads(held["srblock.input"])
    assert said == run.input.as_dict()
    assert held["srblock.logits"] == done.logits == "logits of one view of an image"
    mean, std = (np.array(said[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    for count in (1, 5):
        images = digits(count)
        logits = asked(tmp_path / "net.onnx", (images.numpy() / np.float32(255) - mean) / std)
        expected = run.model(run.preprocess(images)).detach().numpy()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert [said["classes"][k] for k in logits.argmax(1)] == [p.classes[0] for p in run.predict(images)]
    assert not np.allclose(
        expected, load_run(out, variant=BLOCK, device="cpu").logits(run.preprocess(images)), atol=0.05
    )
    assert (done.found.images, done.found.equal, done.found.answers) == (64, 64, 64)
    assert 0 <= done.found.difference < 1e-5 * done.found.scale


def test_a_program_can_be_read_again(out: Path, tmp_path: Path) -> None:
    run = loaded(out, RESIZED)
    done = export_run(run, tmp_path / "net.pt2", list(digits(3)))
    assert (done.found.images, done.any_size) == (3, True)
    held = {"srblock.input": "", "srblock.logits": ""}
    network = torch.export.load(tmp_path / "net.pt2", extra_files=held).module()
    assert json.loads(held["srblock.input"]) == run.input.as_dict()
    batch = run.preprocess(digits(3))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for images in (batch, batch[:1], nn.functional.interpolate(batch, (20, 31))):
        torch.testing.assert_close(network(images), run.model(images), rtol=0, atol=1e-4)
    assert HERE not in b"".join(path.read_bytes() for path in unpacked(tmp_path / "net.pt2", tmp_path / "parts"))


def unpacked(file: Path, folder: Path) -> list[Path]:
    shutil.unpack_archive(file, folder, "zip")
    return [path for path in folder.rglob("*") if path.is_file()]


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_any_size_where_the_network_takes_it(out: Path, tmp_path: Path) -> None:
    run = loaded(out, RESIZED)
    done = export_run(run, tmp_path / "net.onnx", list(digits(3)))
    assert done.any_size
    assert done.other is not None
    assert (done.other.images, done.other_size) == (2, (53, 67))
    (given,) = runtime(tmp_path / "net.onnx").get_inputs()
    assert given.shape == ["batch", 1, "height", "width"]
    images = nn.functional.interpolate(run.preprocess(digits(3)), (24, 41))
    expected = run.model(images).detach()
    torch.testing.assert_close(
        torch.from_numpy(asked(tmp_path / "net.onnx", images.numpy())), expected, rtol=0, atol=1e-3
    )
    assert "height and width: free" in str(done)


def test_one_size_where_a_block_belongs_to_it(out: Path, tmp_path: Path) -> None:
    done = export_run(loaded(out, TIMM), tmp_path / "net.onnx", list(digits(1)))
    assert (done.any_size, done.other) == (False, None)
    (given,) = runtime(tmp_path / "net.onnx").get_inputs()
    assert given.shape == ["batch", 1, 16, 16]
    assert "height and width: 16x16" in str(done)


@pytest.mark.parametrize("flips", [False, True], ids=["refuses", "computes something else"])
def test_one_size_where_the_network_alone_belongs_to_it(out: Path, tmp_path: Path, flips: bool) -> None:
    """It refuses another size, or its export is wrong at another one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classify = nn.Linear(256, 10)

        def forward(self, x: Tensor) -> Tensor:
            if not flips:
                return self.classify(x.flatten(1))
            if not torch.compiler.is_exporting() and x.shape[-1] != 16:
                x = 1 - x
            return self.classify(x.mean((2, 3)).expand(-1, 256))

    done = export_run(replace(loaded(out, PLAIN), model=Net().eval()), tmp_path / "net.pt2", list(digits(2)))
    assert not done.any_size


# --- scenes ----------------------------------------------------------------------------------------------------------


def test_scenes_are_looked_at_through_windows(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    run = loaded(scenes[0], DEEPLAB)
    done = export_run(run, tmp_path / "net.onnx")
    assert (done.found.images, done.found.answers) == (4 * 4, 4 * 4 * 32 * 64), "four windows of each of four scenes"
    assert done.logits == "logits of each pixel of a window of 32x64"

    def network(batch: Tensor) -> Tensor:
        return torch.from_numpy(asked(tmp_path / "net.onnx", batch.contiguous().numpy()))

    with Image.open(next((scenes[1] / "test").glob("*.png"))) as scene:
        batch = run.preprocess(scene)
    expected = run.logits(batch)
    found = slide(network, batch, run.input.size)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_what_the_test_averaged_over_is_said(out: Path, tmp_path: Path) -> None:
    run = loaded(out, PLAIN)
    run = replace(run, input=replace(run.input, tta="flip"))
    done = export_run(run, tmp_path / "net.pt2", list(digits(1)))
    assert done.any_size, "a network without blocks takes any size"
    assert done.logits == "logits of one view of an image (the run's test averaged over views: flip)"


# --- folded ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["net.onnx", "net.pt2"])
def test_a_folded_export_is_checked_against_the_network_as_it_was(out: Path, tmp_path: Path, file: str) -> None:
    run = loaded(out, BLOCK)
    keys = list(run.model.state_dict())
    done = export_run(run, tmp_path / file, folded=True)
    assert list(run.model.state_dict()) == keys
    assert (done.found.images, done.found.equal) == (64, 64)
    assert 0 < done.found.difference < 1e-5 * done.found.scale
    assert done.folding is not None
    assert "a table 4 x 10 that 'fc' adds" in str(done.folding)
    assert str(done).splitlines()[2:] == str(done.folding).splitlines()
    held = {"srblock.folded": ""}
    if file == "net.pt2":
        program = torch.export.load(tmp_path / file, extra_files=held)
        shapes = {tuple(value.shape) for value in program.state_dict.values()}
    else:
        held = runtime(tmp_path / file).get_modelmeta().custom_metadata_map
        shapes = {tuple(value.dims) for value in onnx.load(tmp_path / file).graph.initializer}
    assert held["srblock.folded"] == str(done.folding)
    assert not any(shape[:1] == (4,) and len(shape) == 4 for shape in shapes), "no memory is in the file"


def test_another_folded_network_is_not_left_behind(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = loaded(out, BLOCK)

    def wrong(model: nn.Module, input_size: Any) -> Any:
        folded, report = srblock.fold(model, input_size)
        folded.fc.weight.data[:, -1] += 1
        return folded, report

    monkeypatch.setattr(exporting, "fold", wrong)
    with pytest.raises(ValueError, match="is not the network"):
        export_run(run, tmp_path / "net.pt2", list(digits(2)), folded=True)


def test_what_was_folded_into_the_classifier_belongs_to_one_size(out: Path, tmp_path: Path) -> None:
    run = loaded(out, RESIZED)
    assert export_run(run, tmp_path / "net.pt2", list(digits(2))).any_size
    done = export_run(run, tmp_path / "net.pt2", list(digits(2)), folded=True)
    assert not done.any_size
    assert "maps of other sizes than 4x4 are refused now" in str(done)


def test_folding_needs_a_block(out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no block to fold"):
        export_run(loaded(out, PLAIN), tmp_path / "net.pt2", list(digits(1)), folded=True)


def test_the_command_says_what_it_folded(out: Path, tmp_path: Path) -> None:
    done = invoke("export", out, tmp_path / "net.pt2", "--variant", BLOCK, "--fold")
    assert done.exit_code == 0
    assert "into a table 4 x 10 that 'fc' adds" in done.output


# --- refusals --------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """A network of which the export is another."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits * 1.01 if torch.compiler.is_exporting() else logits


def test_another_network_is_not_left_behind(out: Path, tmp_path: Path) -> None:
    run = loaded(out, BLOCK)
    (tmp_path / "net.pt2").write_bytes(b"older")
    with pytest.raises(ValueError, match=r"is not the network: 2 images of 16x16: largest difference .*; no file"):
        export_run(replace(run, model=Odd(run.model)), tmp_path / "net.pt2", list(digits(2)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"net.pt2": b"older"}


def test_what_is_counted() -> None:
    """The first image alone, all in batches; what is not a number is no rounding."""
    batches = []

    def exported(batch: Tensor) -> Tensor:
        batches.append(len(batch))
        return batch.flatten(1) + (0.5 if len(batch) == 1 else 0.25)

    images = torch.tensor([[0.0, -8.0]] * 17 + [[0.1, 0.0]]).view(18, 1, 1, 2)
    found = agreement(exported, nn.Flatten(), images)
    assert batches == [1, 16, 2]
    assert (found.images, found.answers, found.equal) == (18, 18, 18)
    assert (found.difference, found.scale, found.close) == (0.5, 8.0, False)
    turned = agreement(lambda batch: batch.flatten(1).flip(1), nn.Flatten(), images[-1:])
    assert (turned.answers, turned.equal) == (1, 0)
    assert not agreement(lambda batch: batch.flatten(1) * torch.nan, nn.Flatten(), images).close
    assert Agreement(1, 1e-3, 1.0).close
    assert not Agreement(1, 1.1e-3, 1.0).close
    with pytest.raises(ValueError, match="there are no images to check"):
        agreement(exported, nn.Flatten(), [])


def test_what_cannot_be_exported_is_refused(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(out, variant=PLAIN, device="cpu")
    with pytest.raises(ValueError, match=r"NAME\.onnx or NAME\.pt2, got net\.pth"):
        export_run(run, tmp_path / "net.pth")

    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10] if x.sum() > 0 else x.flatten(1)[:, 10:20]

    with pytest.raises(ValueError, match=r"R8 cannot be exported: \S+"):
        export_run(replace(run, model=Asks()), tmp_path / "net.pt2", list(digits(1)))
    monkeypatch.setattr(export_files, "ONNX_LIMIT_BYTES", 1000)
    with pytest.raises(ValueError, match=r"too many for one ONNX file; export a \.pt2"):
        export_run(run, tmp_path / "net.onnx")
    monkeypatch.setattr(export_files, "NEEDED", ("onnx", "onnx_of_nobody"))
    with pytest.raises(ValueError, match=r'needs onnx_of_nobody: pip install "srblock\[export\]"'):
        export_run(run, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_checked(out: Path, tmp_path: Path) -> None:
    done = invoke("export", out, tmp_path / "net.pt2", "--variant", BLOCK)
    assert done.exit_code == 0
    first, second = done.output.splitlines()
    assert first.endswith("net.pt2: logits of one view of an image; batch: any, height and width: 16x16")
    assert "against PyTorch on the CPU, 64 images of 16x16: largest difference " in second
    assert second.endswith("the same class for all 64")


def test_the_command_takes_images(out: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(digits(3)):
        Image.fromarray(image[0].numpy()).resize((40, 30)).save(tmp_path / f"photos/{number}.png")
    (folder,) = (out / "runs").glob("r8-sr-m3-p4-s0-*")
    shutil.copy(folder / "checkpoint.safetensors", tmp_path / "alone.safetensors")
    command = ("export", tmp_path / "alone.safetensors", tmp_path / "net.pt2")
    alone = invoke(*command)
    assert alone.exit_code == 2, "nobody says where its data is"
    assert "the run's own test images cannot be loaded" in alone.output
    assert "name others: --images photos/" in alone.output
    done = invoke(*command, "--images", tmp_path / "photos", tmp_path / "photos/0.png")
    assert "4 images of 16x16" in done.output
    (tmp_path / "net.pt2").unlink()
    (tmp_path / "photos/1.png").write_bytes(b"?")
    broken = invoke(*command, "--images", tmp_path / "photos")
    assert broken.exit_code == 2
    assert "1.png: " in broken.output
    assert not (tmp_path / "net.pt2").exists()


def test_the_words_of_an_export() -> None:
    found = Agreement(16, 2e-6, 12.5, 16 * 32, 16 * 32 - 1)
    said = str(Export(Path("a.onnx"), "logits", (4, 8), True, found, (41, 59), replace(found, images=1)))
    assert said.splitlines() == [
        "a.onnx: logits; batch: any, height and width: free",
        "ONNX Runtime against PyTorch on the CPU, 16 windows of 4x8: largest difference 2.0e-06 of logits up to 12.5, "
        "the same class for 511 of 512 pixels",
        "and resized, 1 window of 41x59: largest difference 2.0e-06 of logits up to 12.5, "
        "the same class for 511 of 512 pixels",
    ]
