"""The suite on many GPUs: plans shards, has an executor run them, joins what they measured.

plan.py         which cases each shard measures, by how long they took before
commands.py     the command line of each job
jobs.py         what an executor is given and what it gives back
gpus.py         the GPUs that a process sees
process.py      one job's process on the machine that this runs on
local.py        every GPU of this machine, or its CPU
ray.py          a Ray cluster's GPUs, or one job for each of its nodes' CPUs
listing.py      plugin of pytest: the cases that a command line selects
state.py        what is planned and finished, in a file, so that a run can go on
run.py          has the jobs run, and keeps what they give
results.py      the files of each job, and what is known of a shard
"""
