# Scores of the rewards that watch, at every checkpoint whose images a benchmark scores.


rule guard:
    """Score the images of one checkpoint by a reward that watches."""
    input:
        shards=guarded_shards,
    output:
        "results/{E}/guards/{G}/{S}/{R}/{N}.json",
    log:
        "results/{E}/logs/guard/{G}.{S}.{R}.{N}.log",
    benchmark:
        "results/{E}/timings/guard/{G}.{S}.{R}.{N}.tsv"
    conda:
        "../../envs/caption.yaml"
    threads: asks("guard", "threads", guard_on_gpu, here=1)
    resources:
        runtime=asks("guard", "runtime", guard_on_gpu, here=240),
        mem_mb=asks("guard", "mem_mb", guard_on_gpu, here=4000),
        gpu=gpus_of("guard", guard_on_gpu),
        gpus_per_node=asks("guard", "gpus_per_node", guard_on_gpu),
        resumable=True,
    params:
        venv=venv("caption"),
        digest=made_from("guard", guard="G", image_set="S"),
        config=config_path,
        images=lambda wildcards, input: os.path.dirname(os.path.dirname(input.shards[0])),
        work=work_folder("guard", "guard/{G}/{S}/{R}/{N}", guard="G", image_set="S"),
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: guard {wildcards.G} looks at {wildcards.S} of {wildcards.R} at {wildcards.N}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho guard --name {wildcards.G} --images {params.images:q}"
        " --config {params.config:q} --run {wildcards.R} --step {wildcards.N} --work {params.work:q} --out {output:q}"
        " 2>&1 | tee -i {log:q}"


rule guards:
    """All scores by guards of the listed experiments."""
    input:
        listed_guards(),
