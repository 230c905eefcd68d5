from __future__ import annotations

import pytest

from srblock.data import load
from srblock.data.sources import at_hand
from srblock.data.sources.cache import cache_folder


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "no image set and no path: 'digit'; did you mean digits.* known sets are digits, cifar10, cifar100"),
        ("CIFAR-100", "did you mean cifar100"),
        ("cifra10:/data", "did you mean cifar10"),
        ("nowhere/at/all", "no image set and no path: 'nowhere/at/all'; known sets"),
        ("", "no image set and no path: ''"),
        ("cifar100:", "expected a path after 'cifar100:', or 'cifar100' alone"),
    ],
)
def test_unknown_names(spec, message):
    with pytest.raises(ValueError, match=message):
        load(spec)


def test_only_what_would_be_downloaded_or_has_no_path_is_not_at_hand(tmp_path):
    assert not at_hand("cifar100", tmp_path)
    assert not at_hand("imagenet")
    for spec in ("digits", "cifar100:somewhere", "imagenet:somewhere", "my_images"):
        assert at_hand(spec, tmp_path)
    (tmp_path / "cifar-100-binary").mkdir()
    assert not at_hand("cifar100", tmp_path)
    for name in ("train.bin", "test.bin", "fine_label_names.txt"):
        (tmp_path / "cifar-100-binary" / name).touch()
    assert at_hand("cifar100", tmp_path)


def test_nearest_paths_are_offered(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(ValueError, match=f"did you mean {tmp_path}/flowers"):
        load(tmp_path / "flower")


@pytest.mark.parametrize("image_size", [0, -3, 3.5, True, "32"])
def test_image_size(image_size):
    with pytest.raises(ValueError, match="--image-size must be a whole number of pixels, at least 1, got"):
        load("digits", image_size=image_size)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SRBLOCK_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert cache_folder(tmp_path / "argument") == tmp_path / "argument"
    monkeypatch.setenv("SRBLOCK_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "srblock"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "srblock"
