"""What benchmark scripts capture as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch


def captured(action: Callable[[], object], times: int = 1) -> Callable[[], object]:
    """Capture an action, so many times over, as one CUDA graph and return its replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            action()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            action()
    return graph.replay
