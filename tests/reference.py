"""The Squeeze-and-Remember block once more: NumPy, plain loops, gradients derived by hand (Sec. III).

Written from the equations, not from `srblock.block`, and without torch, so that the two can only agree by being right:

    q[n, hW+w] = sum_c s[c] x[n, c, h, w]                squeeze
    b = W1 q;  t = act(b);  z = W2 t;  a = softmax(z)    recall weights
    r[n] = sum_p a[n, p] M[p];  y = x + r                remember

Shapes: x (N, C, h, w), squeeze (1, C, 1, 1), fc1 (U, HW), fc2 (P, U), memory (P, C, H, W). Where (h, w) differs from
(H, W), q is resized to (H, W) and r to (h, w), bilinearly with half-pixel centers and no antialiasing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """What one forward pass computes, kept for the backward pass."""

    squeezed: Array  # (N, HW), on the memory's grid
    before: Array  # (N, U), before the activation
    after: Array  # (N, U)
    weights: Array  # (N, P)
    recalled: Array  # (N, C, h, w)
    output: Array  # (N, C, h, w)


def forward(x: Array, squeeze: Array, fc1: Array, fc2: Array, memory: Array, activation: str | None = None) -> Forward:
    """Run the block on x, one number at a time."""
    images, channels, height, width = x.shape
    blocks, _, grid_h, grid_w = memory.shape
    hidden = fc1.shape[0]
    squeezed = np.zeros((images, grid_h * grid_w))
    before = np.zeros((images, hidden))
    weights = np.zeros((images, blocks))
    recalled = np.zeros_like(x)
    for n in range(images):
        plane = np.zeros((height, width))
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    plane[i, j] += squeeze[0, c, 0, 0] * x[n, c, i, j]
        plane = resize(plane, (grid_h, grid_w))
        for i in range(grid_h):
            for j in range(grid_w):
                squeezed[n, i * grid_w + j] = plane[i, j]
        for u in range(hidden):
            for k in range(grid_h * grid_w):
                before[n, u] += fc1[u, k] * squeezed[n, k]
        logits = [sum(fc2[p, u] * _activate(before[n, u], activation) for u in range(hidden)) for p in range(blocks)]
        total = sum(math.exp(z - max(logits)) for z in logits)
        for p in range(blocks):
            weights[n, p] = math.exp(logits[p] - max(logits)) / total
        for c in range(channels):
            mixed = np.zeros((grid_h, grid_w))
            for p in range(blocks):
                mixed += weights[n, p] * memory[p, c]
            recalled[n, c] = resize(mixed, (height, width))
    after = np.array([[_activate(b, activation) for b in row] for row in before]).reshape(before.shape)
    return Forward(squeezed, before, after, weights, recalled, x + recalled)


def gradients(
    x: Array,
    squeeze: Array,
    fc1: Array,
    fc2: Array,
    memory: Array,
    upstream: Array,
    activation: str | None = None,
) -> dict[str, Array]:
    """Derive sum(upstream * y) by x, squeeze, fc1, fc2 and memory."""
    images, channels, height, width = x.shape
    blocks, _, grid_h, grid_w = memory.shape
    hidden = fc1.shape[0]
    run = forward(x, squeeze, fc1, fc2, memory, activation)
    d_x, d_squeeze = upstream.copy(), np.zeros_like(squeeze)
    d_fc1, d_fc2, d_memory = np.zeros_like(fc1), np.zeros_like(fc2), np.zeros_like(memory)
    for n in range(images):
        on_grid = np.stack([resize_adjoint(upstream[n, c], (grid_h, grid_w)) for c in range(channels)])
        d_weights = np.zeros(blocks)
        for p in range(blocks):
            d_memory[p] += run.weights[n, p] * on_grid
            for c in range(channels):
                for i in range(grid_h):
                    for j in range(grid_w):
                        d_weights[p] += on_grid[c, i, j] * memory[p, c, i, j]
        mean = sum(run.weights[n, p] * d_weights[p] for p in range(blocks))
        d_logits = [run.weights[n, p] * (d_weights[p] - mean) for p in range(blocks)]
        d_squeezed = np.zeros(grid_h * grid_w)
        for u in range(hidden):
            d_after = 0.0
            for p in range(blocks):
                d_fc2[p, u] += d_logits[p] * run.after[n, u]
                d_after += d_logits[p] * fc2[p, u]
            d_before = d_after if activation is None or run.before[n, u] > 0 else 0.0
            for k in range(grid_h * grid_w):
                d_fc1[u, k] += d_before * run.squeezed[n, k]
                d_squeezed[k] += d_before * fc1[u, k]
        d_plane = resize_adjoint(d_squeezed.reshape(grid_h, grid_w), (height, width))
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    d_squeeze[0, c, 0, 0] += d_plane[i, j] * x[n, c, i, j]
                    d_x[n, c, i, j] += d_plane[i, j] * squeeze[0, c, 0, 0]
    return {"x": d_x, "squeeze": d_squeeze, "fc1": d_fc1, "fc2": d_fc2, "memory": d_memory}


def resize(plane: Array, size: tuple[int, int]) -> Array:
    """Interpolate a map (h, w) to another size, bilinearly; the same size gives the map itself."""
    out = np.zeros(size)
    for i, row in enumerate(_taps(plane.shape[0], size[0])):
        for j, column in enumerate(_taps(plane.shape[1], size[1])):
            for k, share_k in row:
                for m, share_m in column:
                    out[i, j] += share_k * share_m * plane[k, m]
    return out


def resize_adjoint(gradient: Array, size: tuple[int, int]) -> Array:
    """Carry a gradient on the resized map back to the map of `size` that was resized."""
    out = np.zeros(size)
    for i, row in enumerate(_taps(size[0], gradient.shape[0])):
        for j, column in enumerate(_taps(size[1], gradient.shape[1])):
            for k, share_k in row:
                for m, share_m in column:
                    out[k, m] += share_k * share_m * gradient[i, j]
    return out


def _taps(source: int, target: int) -> list[list[tuple[int, float]]]:
    """List for each target position the source positions it reads and their shares."""
    taps = []
    for i in range(target):
        position = min(max((i + 0.5) * source / target - 0.5, 0.0), source - 1.0)
        low = min(math.floor(position), source - 1)
        high = min(low + 1, source - 1)
        taps.append([(low, 1.0 - (position - low)), (high, position - low)])
    return taps


def _activate(value: float, activation: str | None) -> float:
    return max(value, 0.0) if activation == "relu" else value
