# `snakemake NAME`: all scores by one benchmark. The names are those of the descriptors, ours and others'. After all other
# rules, so that a name that one of them has is reported.
for _benchmark in benchmark_names():

    rule:
        """All scores by the benchmark of this name, of the listed experiments."""
        name:
            _benchmark
        input:
            listed_scores(_benchmark),
