"""Quantised rows back to numbers: GGUF's Q8_0 blocks."""

import numpy as np

BLOCK = 32  # values that share one scale


def dequantise_q8_0(scale_bits: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n, dim) float32 from scale_bits (n, dim/32) uint16 float16-bits and q (n, dim) int8.

    value = scale * q, block by block: exactly what llama.cpp computes. Raises ValueError on shapes.
    """
    rows, dim = q.shape
    if scale_bits.shape != (rows, dim // BLOCK) or dim % BLOCK:
        raise ValueError(f"scales {scale_bits.shape} do not belong to quants {q.shape}")
    scale = scale_bits.view(np.float16).astype(np.float32)
    return (q.reshape(rows, -1, BLOCK).astype(np.float32) * scale[:, :, None]).reshape(rows, dim)
