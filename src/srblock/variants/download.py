"""Trained weights from the network: without one that is said in seconds, not after a library's retries."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_S = 5.0


@contextmanager
def downloading(network: str, *, hub: bool = False) -> Iterator[None]:
    """Turn a failed download into an error that says what to do.

    Args:
        hub: whether it is from the Hugging Face Hub, which is asked to answer first; if it does not, what is in its
            cache is taken and nothing is tried again.

    Raises: ValueError if the weights cannot be had.
    """
    from huggingface_hub import constants, errors

    offline = constants.HF_HUB_OFFLINE
    reason = _unreachable(constants.ENDPOINT) if hub and not offline else None
    try:
        constants.HF_HUB_OFFLINE = offline or reason is not None
        yield
    except (urllib.error.URLError, TimeoutError, ConnectionError, errors.LocalEntryNotFoundError) as error:
        said = reason or str(error).splitlines()[0]
        raise ValueError(
            f"the trained weights of {network} cannot be downloaded ({said}); fetch them where there is a network and "
            "give the file with --weights FILE, or leave out --pretrained"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def _unreachable(address: str) -> str | None:
    """Say why a server does not answer; None if it does, whatever it says."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=WAIT_S):
            return None
    except urllib.error.HTTPError:
        return None
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        return f"{address} does not answer: {getattr(error, 'reason', error)}"
