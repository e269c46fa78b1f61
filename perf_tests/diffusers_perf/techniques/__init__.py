"""Techniques that no library offers as a call, each a small piece that an optimization puts in.

kept_prompt.py   a prompt encoded once for all its images
beneath.py       compiled blocks under the hooks of a cache
cuda_graphs.py   captures what a function launches, and replays it
device_steps.py  the denoising loop with nothing of a step left to the host
stepped.py       what of that loop is each pipeline's own
schedules.py     schedulers whose step is one product
conditioning.py  what no step changes, computed once an image
shared_prefix.py what guidance's two halves have in common, computed for one of them
deep_cache.py    the package DeepCache in that loop
fused.py         what torch.compile does not fuse by itself
kernels.py       the Triton kernels behind it
"""
