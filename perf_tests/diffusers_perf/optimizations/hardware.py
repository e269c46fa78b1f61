"""What optimizations need of a machine."""

from __future__ import annotations

from diffusers_perf.catalog.declarations import Needs

TENSOR_CORES = Needs(compute_capability=(8, 0))
CUDA = Needs(compute_capability=(6, 0))
# What torch.compile makes its kernels with; on a CPU it is a C++ compiler, and takes minutes.
COMPILER = Needs(compute_capability=(7, 0), package="triton")
