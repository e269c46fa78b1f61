"""Performance regression tests for Stable Diffusion inference with diffusers.

The words this folder uses, one for one thing:

optimization  one declared change to how a pipeline is built or run (``tf32``, ``fp16`` …)
stack         several optimizations applied in order (``tf32+fp16``)
case          what one test runs: a stack on a workload
workload      what is generated, with everything that a picture depends on pinned
reference     the case that another is compared with, in the same run
measurement   everything that was observed while a case ran
counter       an observation that is exactly the same on every run (kernels launched, host syncs)
baseline      what this machine did when a person last accepted it
limit         what the baseline allows
closeness     what an optimization promises about the picture
verdict       one a metric; the case's is the worst of them
fault         a regression planted on purpose, with the measure that must see it
control       a change planted on purpose that no rule may take for a regression

Where to find what:

optimizations.py    one decorated function each, then the stacks worth measuring
workloads.py        the pinned workloads
declared.py         imports what declares, and says what is wrong with it
test_generation.py  the test: build → time → look → judge
faults/             what the suite must catch, and what it must let pass: one file a kind
techniques/         what optimizations put in that no library offers as a call
harness/            the machinery; names no optimization, no model and no GPU
models/             where weights come from
unit/               tests of all this that need no GPU
browser/            tests of the report's page in a real browser
"""
