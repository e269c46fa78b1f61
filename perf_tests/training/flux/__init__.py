"""The recipe of the second embedded model: a small Flux, trained on the first model's images.

`python -m perf_tests.training.flux --out FOLDER` takes the first model's autoencoder, tokenizer
and text encoder as they are shipped, trains the rest, and leaves the finished pipeline in
FOLDER/model. The images, the captions and the evaluator are the first model's.

    words.py         the T5 tokenizer: one entry for each word of the captions
    architecture.py  the configurations of all modules: FLUX.1-dev, scaled down
    compute.py       precision while training
    stages.py        what each stage trains, and for how long
    scores.py        generate with a pipeline
    folder.py        the saved folder and its model card
    __main__.py      the command

Latents are (batch, 4, 8, 8) as the autoencoder makes them, or *packed* as the transformer takes
them: (batch, 16 tokens, 16 channels), one token for each 2×2 square. A *noise level* is 0 for an
image and 1 for pure noise; the pipeline calls it sigma.
"""
