"""Where a hospital trains and the server evaluates: the processor, or one CUDA device.

Batches and noise are drawn on the processor on either, from the same streams: a guarantee does not depend
on where the layers run. Results do, in their last digits.
"""

from __future__ import annotations

import torch

from fl_ppae.errors import UserError

CPU = torch.device("cpu")
_CUDA = torch.device("cuda", 0)  # Ray shows each of its workers the device that it was given, as number 0


def device_of(choice: str) -> torch.device:
    """The device that the key `device` means here; `auto` is a CUDA device where there is one.

    Raises:
        UserError: `cuda`, and there is none.
    """
    if choice == "cpu":
        return CPU
    if torch.cuda.is_available():
        return _CUDA
    if choice == "cuda":
        raise UserError('device = "cuda": no CUDA device is visible here; use "auto" or "cpu"')
    return CPU


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def exact_float32(device: torch.device) -> None:
    """Float32 products on `device` are float32 from here on, whatever the process was set to.

    In TF32 a clipped gradient is rounded by up to 5e-4 of itself, and its norm is no longer bounded by
    the clipping norm.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: torch.device) -> str:
    """For a report: the CUDA device's own name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
