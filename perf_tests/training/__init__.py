"""The recipe of the embedded model: from nothing to four small trained modules.

`python -m perf_tests.training --out FOLDER` draws its own data, trains and measures, and
leaves in FOLDER/model what is committed as `perf_tests/diffusers_perf/models/embedded`. The harness
does not import this package; tests may use its evaluator.

A map of the folder, in the order of the data:

    shapes.py        what an image can show, and the painter that draws it on any device
    captions.py      the sentences about an image, and the combinations that are held out
    vocabulary.py    the tokenizer: byte-pair encoding trained on the captions
    architecture.py  the configurations of all modules: Stable Diffusion v1.5, scaled down
    training.py      one training loop: step, clock, averaged weights, checkpoint, CUDA graph
    workshop.py      the folder a recipe works in, stage by stage
    stages.py        what each stage trains, and for how long
    evaluator.py     from an image: which shape, which colours, where; no network in it
    scores.py        generate with the saved folder and count what the prompt got
    image_distance.py how far each harmless and each harmful change moves the image
    folder.py        the saved folder, its model card and its sheet of images
    command.py       what the commands of this recipe and of flux/ share
    __main__.py      the command
    flux/            a second model: a flow-matching transformer on the same images and captions

A *scene* is what an image shows, as numbers; a *triple* is (shape, colour, background), the
part of a scene that a caption always names. Images are (batch, 3, 64, 64) float tensors:
in [-1, 1] where a network takes or makes them, in [0, 1] where the evaluator looks at them.
"""
