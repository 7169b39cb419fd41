# The official prompt sets. Image sets that name a file below data/benchmarks get it fetched.


rule official_prompts:
    """Fetch an official prompt set: from the mirror that the site configuration names, or from its source."""
    output:
        "data/benchmarks/{set}/{file}",
    log:
        "data/logs/{set}.{file}.log",
    benchmark:
        "data/timings/{set}.{file}.tsv"
    wildcard_constraints:
        set="|".join(source.name for source in listed_sources()),
        file="[^/]+",
    localrule: True  # compute nodes may have no internet
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        runtime=60,
        mem_mb=2000,
    params:
        venv=venv("score"),
        mirror=benchmarks_mirror,
        plugins=source_option,
        out=lambda wildcards, output: os.path.dirname(os.path.dirname(output[0])),
    message:
        "fetch the prompts of {wildcards.set}"
    shell:
        "{params.venv}python -m promptecho benchmarks fetch {wildcards.set} --out {params.out:q} {params.mirror} {params.plugins}"
        " 2>&1 | tee -i {log:q}"
