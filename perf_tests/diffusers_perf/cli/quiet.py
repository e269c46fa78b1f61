"""Keeps out of a command's output what pipelines and libraries would draw over it."""

from __future__ import annotations


def quiet() -> None:
    """No remark and no progress bar, of whatever builds a pipeline, or calls it."""
    import diffusers
    import transformers
    from diffusers.modular_pipelines import LoopSequentialPipelineBlocks

    from diffusers_perf import models

    models.quiet_libraries()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    # Of the classes: a modular pipeline's own setting leaves out blocks within blocks, and a class
    # of the user's that holds pipelines has none.
    for kind in (diffusers.DiffusionPipeline, LoopSequentialPipelineBlocks):
        kind.set_progress_bar_config(kind, disable=True)
