"""The machinery, in the order in which a case passes through it.

catalog     declarations: optimizations, workloads, cases, what they need and promise   (no torch)
build       what an optimization may change
pipelines   builds a case's pipeline on the device and takes it away again
proofs      checks that an optimization took effect
timing      warm-up and timed rounds
counters    what the GPU did, from a profiled generation
host        what a generation costs the host: Python calls, bytes kept
floor       the least a case could take on this GPU
structure   what the code asks for, counted without a GPU
structure_records   what was counted, by kind and place                                 (no torch)
structure_verdicts  reads, writes and judges accepted counts                            (no torch)
observing   counters, host, floor and structure: what stands beside a case's wall clock
machine     which machine this is
quiet       whether it is quiet
packages    says which package is not installed                                         (no torch)
closeness   looks at pictures                                                           (no torch)
records     a measurement and its JSON                                                  (no torch)
measuring   which version of all this measured
runs        what a process left behind                                                  (no torch)
shape       what a JSON must look like                                                  (no torch)
baselines   reads and writes `baselines/`                                               (no torch)
stats       medians and intervals                                                       (no torch)
verdicts    the one rule that decides                                                   (no torch)
comparable  which runs may be held to each other                                        (no torch)
weighing    the rule for one metric of head against base                                (no torch)
pairs       head against base, case by case                                              (no torch)
bench       carries a case through all of the above
planting    declarations: faults and controls, where they show and what must see them   (no torch)
trials      plants a fault between two clean runs and judges it
search      looks for the fastest stack under limits on picture and memory              (no torch)
screen      what a person reads in the terminal                                         (no torch)
"""
