"""Performance regression tests for diffusion inference with Hugging Face diffusers."""

from diffusers_perf.plugin.generation import test_generation

__all__ = ["test_generation"]
