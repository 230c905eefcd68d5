"""Speed of decoding and augmenting JPEGs, alone, beside torchvision's plain ImageFolder pipeline.

    python benchmarks/data_speed.py --source FOLDER [--images 256] [--rounds 9] [--workers 2] [--files 100000]

The images of FOLDER (any photographs, such as CamVid's 480x360 frames) are brought to ImageNet's usual 500x375, and to
1600x1200, and saved as JPEGs of quality 90. Each round decodes all of them, with a random resized crop to 224 and
mirroring, in batches of 128

- in one process with one thread: what a worker does for srblock, for torchvision as the PyTorch ImageNet example has it
  (ImageFolder, RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize), and for the leanest torchvision
  (PILToTensor, normalized elsewhere, as srblock does);
- through `--workers` worker processes: images reaching the training process.

Then both list a folder of `--files` files. The order of the competitors alternates from round to round; the figures are
medians of the rounds' ratios. Writes a CSV into benchmarks/results/, named by processor and versions, a row a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import machine
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, features
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from srblock.data import ImageFiles, load
from srblock.data.image_files import MEAN, STD
from srblock.data.loading.stream import Decoder, Stream

SIDE, BATCH = 224, 128
SIZES = ((500, 375), (1600, 1200))
CPU = torch.device("cpu")


def make_jpegs(source: Path, root: Path, size: tuple[int, int], count: int) -> Path:
    """Write train/ and val/ with two classes of JPEGs, `count` to train on."""
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not files:
        raise SystemExit(f"no images below {source}")
    for part, number in (("train", count), ("val", 4)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
        for index in range(number):
            image = Image.open(files[index % len(files)]).convert("RGB").resize(size, Image.Resampling.LANCZOS)
            image.save(root / part / "ab"[index % 2] / f"{index:05}.jpg", quality=90)
    return root


def plain(root: Path, *, lean: bool) -> ImageFolder:
    """Return torchvision's pipeline."""
    last = [transforms.PILToTensor()] if lean else [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    cut = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    return ImageFolder(str(root / "train"), transforms.Compose([*cut, *last]))


def batches(count: int) -> list[np.ndarray]:
    """Return the numbers of the images in batches."""
    return [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def timed(work: Callable[[], int]) -> float:
    """Return units of work a second."""
    start = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - start)


def rounds(competitors: dict[str, Callable[[], int]], count: int) -> Iterator[dict[str, float]]:
    """Run all competitors in turn, `count` times, first to last and last to first, after a round to warm up."""
    for number in range(count + 1):
        rates = {name: timed(competitors[name]) for name in sorted(competitors, reverse=bool(number % 2))}
        if number:
            yield rates


def one_core(root: Path, files: ImageFiles) -> dict[str, Callable[[], int]]:
    """Decode everything in this process."""
    epochs = iter(range(10**9))

    def ours() -> int:
        decoder, epoch = Decoder(files, True, SIDE, False, 0), next(epochs)
        return sum(len(decoder[epoch, batch]) for batch in batches(len(files)))

    def theirs(data: ImageFolder) -> int:
        return sum(len(torch.stack([data[n][0] for n in batch])) for batch in batches(len(data)))

    whole, lean = plain(root, lean=False), plain(root, lean=True)
    return {"srblock": ours, "torchvision": lambda: theirs(whole), "torchvision_lean": lambda: theirs(lean)}


def through_workers(root: Path, files: ImageFiles, workers: int) -> dict[str, Callable[[], int]]:
    """Receive everything from worker processes that are already there."""
    epochs = iter(range(10**9))
    stream = Stream(files, random=True, resize=SIDE, square=False, seed=0, device=CPU, workers=workers)

    def ours() -> int:
        return sum(len(images) for images in stream.epoch(next(epochs), batches(len(files))))

    def served(lean: bool) -> Callable[[], int]:
        loader = DataLoader(plain(root, lean=lean), BATCH, num_workers=workers, persistent_workers=True)
        return lambda: sum(len(images) for images, _ in loader)

    return {"srblock": ours, "torchvision": served(False), "torchvision_lean": served(True)}


def scans(root: Path, count: int) -> dict[str, Callable[[], int]]:
    """List a folder of `count` files in 1,000 classes, and as many folders with one file each for testing."""
    for label in range(1000):
        for part, each in (("train", count // 1000), ("val", 1)):
            folder = root / part / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(each):
                (folder / f"{folder.name}_{number}.JPEG").write_bytes(b"x")

    def ours() -> int:
        data = load(f"imagenet:{root}")
        return data.train_size + data.test_size

    return {"srblock": ours, "torchvision": lambda: sum(len(ImageFolder(str(root / p))) for p in ("train", "val"))}


def report(what: str, measured: Sequence[dict[str, float]], unit: str) -> None:
    """Print medians and medians of ratios."""
    ours = statistics.median(row["srblock"] for row in measured)
    print(f"{what}: {ours:,.0f} {unit}/s")
    for other in measured[0]:
        if other != "srblock":
            theirs = statistics.median(row[other] for row in measured)
            ratio = statistics.median(row["srblock"] / row[other] for row in measured)
            print(f"  {other} {theirs:,.0f}, median ratio {ratio:.3f} (n={len(measured)})")


def main() -> None:
    """Measure, print the medians, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a folder of images")
    parser.add_argument("--images", type=int, default=256, help="JPEGs of each size")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--files", type=int, default=100_000, help="files to list; 0 for none")
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    here = {"torchvision": torchvision.__version__.partition("+")[0], "pillow": PIL.__version__, "jpeg": jpeg,
            **machine.describe(CPU)}  # fmt: skip
    rows: list[dict[str, object]] = []

    def record(what: str, size: str, workers: int, competitors: dict[str, Callable[[], int]], unit: str) -> None:
        measured = list(rounds(competitors, args.rounds))
        report(f"{what}, {size}" + (f", {workers} workers" if workers else ""), measured, unit)
        for number, rates in enumerate(measured, start=1):
            for name, rate in rates.items():
                rows.append({"measure": what, "size": size, "workers": workers, "round": number, "library": name,
                             "unit": f"{unit}/s", "rate": round(rate, 2), **here})  # fmt: skip

    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            root = make_jpegs(args.source, Path(scratch) / f"{size[0]}", size, args.images)
            files = load(f"stream:{root}").train_images
            assert isinstance(files, ImageFiles)
            record("decode and augment", f"{size[0]}x{size[1]}", 0, one_core(root, files), "images")
            workers = through_workers(root, files, args.workers)
            record("decode and augment", f"{size[0]}x{size[1]}", args.workers, workers, "images")
        if args.files:
            record("list", f"{args.files:,} files", 0, scans(Path(scratch) / "scan", args.files), "files")
    machine.write(args.out, "data_speed", rows, "pillow", PIL.__version__)


if __name__ == "__main__":
    main()
