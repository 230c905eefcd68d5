"""Recipes: everything that can change a number, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, get_args, get_type_hints

from srblock.training.fields import require_kinds
from srblock.training.ranges import check

# Fields younger than the first published runs: at these values they do not enter a run's identity.
LATER: dict[str, Any] = {
    "crop": "padded",
    "test_resize": None,
    "test_square": False,
    "sync_batch_norm": False,
    "engine": "eager",
    "epoch_steps": None,
    "power": 0.9,
    "memory_lr_scale": None,
    "memory_weight_decay": None,
    "decoupled": False,
    "bias_lr_scale": 1.0,
    "lookahead": False,
    "padding_mode": "zeros",
    "alternating_flip": False,
    "tta": "none",
    "end_lr": 0.0,
    "crop_size": None,
    "scene_scale": 1.0,
    "ratios": [0.5, 2.0],
    "class_share": 0.75,
    "photometric": False,
    "inference": "slide",
    "optimizer": "sgd",
    "norm_weight_decay": None,
    "backbone_lr_scale": 1.0,
    "lr_scales": [],
    "freeze_epochs": 0,
    "auto_augment": "none",
    "augment_magnitude": 9,
    "random_erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema": None,
    "class_weights": "none",
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Two runs with equal recipe, variant, data and seed give the same number.

    Args:
        epochs: passes over the training part. The paper's CIFAR runs: 200, by the authors' sister papers.
        epoch_steps: an epoch is so many optimization steps instead, running on across passes; None for a pass. For
            recipes that count iterations: epochs * epoch_steps of them.
        batch_size: images a step, of all processes together. The paper's ImageNet runs have 128 on four GPUs; as the
            PyTorch example it names divides its batch over them, that is 32 each.
        learning_rate, momentum, nesterov, weight_decay: of SGD; decay acts on every parameter. The paper names no
            nesterov: off.
        optimizer: "sgd", or "adamw", torch's AdamW: momentum is then its first beta, the second is 0.999, and the decay
            is decoupled from the gradient (Loshchilov and Hutter, ICLR 2019).
        norm_weight_decay: decay of the scales and shifts of norms and of all biases; None as all other parameters.
        backbone_lr_scale: factor of the rate for the backbone: all but the head and the blocks that were put in, see
            `runs.groups`.
        lr_scales: factors of the rate by name, "PATTERN=FACTOR" each, such as "layer1.*=0.1"; a parameter has that of
            the first pattern that its name fits, beside all other factors.
        freeze_epochs: so many epochs at first train only the head and the blocks; the backbone's batch norms are
            then as in testing.
        memory_lr_scale, memory_weight_decay: factor of the rate, and decay, of the blocks' memories; None as all other
            parameters. The paper names neither.
        decoupled: rate and decay are per 1,024 images, and changing one of batch size, momentum, rate and decay leaves
            the effect of the others as it is (see `optimizer`); airbench's units.
        bias_lr_scale: factor of the rate, not of the decay, for the biases of batch norms without a trained scale, as
            in Airbench94. (With one, as in a ResNet, a factor of 64 hurts.)
        lookahead: every few steps the weights are drawn back to a slow average of themselves, at first hardly and ever
            more, see `average.Lookahead`.
        ema: validation, test and what is kept are of an exponential moving average of the weights with this decay, see
            `average.Ema`; None for the weights themselves.
        schedule: "multistep" multiplies the rate by `gamma` at each of `milestones` (epochs); "cosine" falls to zero
            over the run, step by step; "poly" falls from the rate to `end_lr` as (1 - share of the run) ** `power`;
            "triangular" rises from 0.2 to 1 times the rate over 23% of the run and falls to 0.07 (airbench).
        warmup_epochs: the rate rises linearly from zero over so many epochs first.
        label_smoothing: share of the target spread over all classes.
        class_weights: "balanced" weighs the training loss of an image inversely to how many training images its class
            has, 1 on average over them; "none" counts all images alike.
        clip_norm: gradients are scaled to at most this norm; None leaves them.
        crop: "padded" cuts a training image from itself with a border; "resized" cuts a random box, 8% to
            100% of the area with sides 3:4 to 4:3, and resizes it (ImageNet; torchvision's RandomResizedCrop).
            "scene" cuts `crop_size` from a scene with a class for every pixel, as the next fields say.
        crop_size: (H, W) of that crop, and of the windows that scenes are tested by; None for other crops.
        scene_scale: both sides of every scene are multiplied by it, in testing too, where predictions are brought to
            the size of the labels.
        ratios: and in training by a number drawn between these.
        class_share: a crop in which one class has this share of the pixels or more is drawn again, up to ten times.
        photometric: distort brightness, contrast, saturation and hue of training scenes.
        inference: how scenes are tested: "slide" by windows of the crop's size, "whole" all at once, for which a block
            needs `resize=bilinear` (see `segmentation.Segmentation`).
        padding: width of that border in pixels (paper: 4 at 32x32).
        padding_mode: what is in it: "zeros", or "reflect" for the image mirrored there.
        flip: mirror training images at random.
        alternating_flip: draw that once for each image and turn it round at every pass, so that an image is seen from
            both sides in two passes (airbench).
        auto_augment: distort training images by drawn operations: "trivialaugment", one of any magnitude, or
            "randaugment", two of `augment_magnitude` (0 to 30), see `policies.Policy`.
        random_erasing: share of the training images that lose a box, see `erasing`.
        mixup, cutmix: alphas of mixing the images of a batch, 0 for none, see `mixing.Mixing`; training accuracy then
            counts the class with the larger share.
        tta: what test and validation images are averaged over: "none", "flip" for both sides, "flip+translate" for
            both sides and shifts by a pixel, see `classification.views`; of scenes "multiscale" for six sizes, and
            "multiscale+flip" for both sides of each.
        test_resize: short side that a test image of a streamed set is resized to before its center is cut; None for
            the side of the cut itself.
        test_square: resize both sides to test_resize instead. The paper says "256x256", its reference resizes the
            short side: off.
        sync_batch_norm: batch statistics over all processes instead of each one's share (CUDA only). The paper's
            reference does not: off.
        validation_fraction: share of the training set held out to select the epoch (paper: 0.1); a set with a
            validation part of its own has that instead. With 0 all images of the training part are trained on, nothing
            is selected, and the result is the last epoch's.
        precision: "bfloat16" runs forward under autocast.
        memory_format: of weights and images.
        engine: how a step reaches the device, see `step.Step`: "eager", "compile", "graph" or "compile+graph". The
            last digits of a result may depend on it.
        channels_last and bfloat16 are resolved for the device before a run starts, see `runtime.resolve`.

    Raises: ValueError for a value out of its range.
    """

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    crop: str = "padded"
    padding: int = 4
    flip: bool = True
    test_resize: int | None = None
    test_square: bool = False
    sync_batch_norm: bool = False
    validation_fraction: float = 0.1
    precision: str = "float32"
    memory_format: str = "channels_last"
    engine: str = "eager"
    epoch_steps: int | None = None
    power: float = 0.9
    memory_lr_scale: float | None = None
    memory_weight_decay: float | None = None
    decoupled: bool = False
    bias_lr_scale: float = 1.0
    lookahead: bool = False
    padding_mode: str = "zeros"
    alternating_flip: bool = False
    tta: str = "none"
    end_lr: float = 0.0
    crop_size: tuple[int, int] | None = None
    scene_scale: float = 1.0
    ratios: tuple[float, float] = (0.5, 2.0)
    class_share: float = 0.75
    photometric: bool = False
    inference: str = "slide"
    optimizer: str = "sgd"
    norm_weight_decay: float | None = None
    backbone_lr_scale: float = 1.0
    lr_scales: tuple[str, ...] = ()
    freeze_epochs: int = 0
    auto_augment: str = "none"
    augment_magnitude: int = 9
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float | None = None
    class_weights: str = "none"

    def __post_init__(self) -> None:
        for name in ("milestones", "ratios", "crop_size", "lr_scales"):
            if isinstance(given := getattr(self, name), list | tuple):
                object.__setattr__(self, name, tuple(given))
        exact = {name: kind for name, kind in _kinds().items() if kind in (bool, int, int | None)}
        require_kinds(vars(self), exact, "recipe")
        check(self)

    def with_epochs(self, epochs: int) -> Recipe:
        """Stretch or shrink the run; milestones, warm-up and frozen epochs keep their share of it.

        Of frozen epochs one is left, if there were any and the run has two or more.
        """
        scale = epochs / self.epochs
        milestones = sorted({max(1, round(m * scale)) for m in self.milestones})
        return replace(
            self,
            epochs=epochs,
            milestones=tuple(m for m in milestones if m < epochs),
            warmup_epochs=min(round(self.warmup_epochs * scale), epochs - 1),
            freeze_epochs=min(max(1, round(self.freeze_epochs * scale)), epochs - 1) if self.freeze_epochs else 0,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it; `from_dict` reads it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def identity(self) -> dict[str, Any]:
        """Return what tells this recipe from others: a field added later counts only where it is used."""
        return {key: value for key, value in self.as_dict().items() if key not in LATER or value != LATER[key]}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """Read a recipe from a run's config.json.

        Raises: ValueError if a field is unknown to this version, or of another kind than it has.
        """
        unknown = set(values) - {field.name for field in fields(Recipe)}
        if unknown:
            raise ValueError(f"this version of srblock does not know the recipe fields {', '.join(sorted(unknown))}")
        require_kinds(values, _kinds(), "recipe")
        return Recipe(**values)


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(Recipe)


def can_be_none() -> set[str]:
    """Name the fields for which None is a value, and not "as it is"."""
    return {name for name, kind in _kinds().items() if type(None) in get_args(kind)}


# Ours, for scenes other than Cityscapes and small budgets: the paper's recipe for those, by passes.
SCENES = Recipe(
    epochs=40,
    batch_size=8,
    learning_rate=0.01,
    weight_decay=5e-4,
    schedule="poly",
    end_lr=1e-4,
    crop="scene",
    crop_size=(512, 1024),
    padding=0,
    photometric=True,
)
RECIPES: dict[str, Recipe] = {
    # Sec. IV-A and App. VI-A; 200 epochs by the sister papers (arXiv 2306.16999, 2409.18951).
    "cifar10": Recipe(milestones=(90, 136), gamma=0.1, weight_decay=1e-4),
    "cifar100": Recipe(milestones=(60, 120, 160), gamma=0.2, weight_decay=5e-4),
    # Sec. IV-A and App. VI-B, the set-up of the PyTorch ImageNet example.
    "imagenet": Recipe(
        epochs=450,
        milestones=(75, 150, 225, 300, 375),
        gamma=0.1,
        weight_decay=1e-4,
        crop="resized",
        padding=0,
        test_resize=256,
    ),
    # App. VII-C: 80,000 steps of MMSegmentation's schedule. Batch and crop are that framework's, the paper is silent.
    "cityscapes": replace(SCENES, epochs=10, epoch_steps=8000, sync_batch_norm=True),
    "scenes": SCENES,
    # Ours, for small budgets: a cosine needs no milestones tuned to its length.
    "short": Recipe(epochs=20, batch_size=64, schedule="cosine", warmup_epochs=1, nesterov=True),
    # Ours, for trained weights: the head first, then all, the backbone gently.
    "finetune": Recipe(
        epochs=10,
        batch_size=64,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        norm_weight_decay=0.0,
        backbone_lr_scale=0.1,
        freeze_epochs=1,
        schedule="cosine",
        warmup_epochs=1,
        label_smoothing=0.1,
        clip_norm=1.0,
        crop="resized",
        padding=0,
        test_resize=256,
        auto_augment="trivialaugment",
        random_erasing=0.1,
    ),
    # K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), made for Airbench94.
    "airbench": Recipe(
        epochs=10,
        batch_size=1024,
        learning_rate=11.5,
        momentum=0.85,
        nesterov=True,
        weight_decay=0.0153,
        decoupled=True,
        bias_lr_scale=64.0,
        schedule="triangular",
        lookahead=True,
        label_smoothing=0.2,
        padding=2,
        padding_mode="reflect",
        alternating_flip=True,
        tta="flip+translate",
    ),
}
