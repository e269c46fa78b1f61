"""The optimizations that ship with the library, by topic; each workload can be measured with them.

To add one: write the function in the file of its topic, say what it needs, which tolerance its
images must keep and how it shows that it took effect. Its name is part of the test's id and its
docstring's first line is the line of the report. The order of declaration is the order in which a
search stacks them.
"""

TOPICS = (
    "precision",
    "modules",
    "adapters",
    "attention",
    "compilation",
    "graphs",
    "caching",
    "feature_caches",
    "quantization",
    "memory",
)
"""The files that declare, in the order in which a search stacks what is in them."""
