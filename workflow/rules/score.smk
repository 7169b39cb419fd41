# Scores of every benchmark at every evaluated checkpoint.


rule judge:
    """Have the judge of a benchmark look at the images of one checkpoint. Needs its endpoint, or a GPU where the judge is
    a model in the job."""
    input:
        unpack(judged_images),
    output:
        "results/{E}/answers/{B}/{R}/{N}.json",
    log:
        "results/{E}/logs/judge/{B}.{R}.{N}.log",
    benchmark:
        "results/{E}/timings/judge/{B}.{R}.{N}.tsv"
    conda:
        scoring_environment
    threads: asks("judge", "threads", judge_on_gpu, here=1)
    resources:
        runtime=asks("judge", "runtime", judge_on_gpu, here=720),
        mem_mb=asks("judge", "mem_mb", judge_on_gpu, here=4000),
        gpu=gpus_of("judge", judge_on_gpu),
        gpus_per_node=asks("judge", "gpus_per_node", judge_on_gpu),
        resumable=True,
        requeue_limit=3,  # an endpoint that hangs must not hold one allocation after the other
    params:
        venv=scoring_venv,
        digest=made_from("score", benchmark="B"),
        options=judging_options,
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: judge {wildcards.B} of {wildcards.R} at {wildcards.N}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho judge {params.options} --out {output:q}"
        " 2>&1 | tee -i {log:q}"


rule score:
    """Score the images of one checkpoint with one benchmark."""
    input:
        unpack(judged_images),
        unpack(scored_answers),
    output:
        "results/{E}/scores/{B}/{R}/{N}.json",
    log:
        "results/{E}/logs/score/{B}.{R}.{N}.log",
    benchmark:
        "results/{E}/timings/score/{B}.{R}.{N}.tsv"
    conda:
        scoring_environment
    threads: asks("score", "threads", score_on_gpu, here=1)
    resources:
        runtime=asks("score", "runtime", score_on_gpu, here=60),
        mem_mb=asks("score", "mem_mb", score_on_gpu, here=4000),
        gpu=gpus_of("score", score_on_gpu),
        gpus_per_node=asks("score", "gpus_per_node", score_on_gpu),
    params:
        venv=scoring_venv,
        digest=made_from("score", benchmark="B"),
        options=judging_options,
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: score {wildcards.B} of {wildcards.R} at {wildcards.N}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho score {params.options} --experiment {wildcards.E} --run {wildcards.R}"
        " --step {wildcards.N} --out {output:q}"
        " 2>&1 | tee -i {log:q}"


rule base:
    """All scores of the listed experiments' base models: what there is to gain, before anything is trained."""
    input:
        listed_base_scores,


rule pack_images:
    """Move the images of one checkpoint and image set into one file, or delete them, once all is made of them."""
    input:
        images_in_use,
    output:
        # images.tar itself is no output: Snakemake deletes outputs when it runs a rule again.
        "results/{E}/images/{R}/{N}/{S}/packed.json",
    log:
        "results/{E}/logs/pack_images/{R}.{N}.{S}.log",
    benchmark:
        "results/{E}/timings/pack_images/{R}.{N}.{S}.tsv"
    localrule: True
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        runtime=60,
        mem_mb=2000,
    params:
        venv=venv("score"),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
        delete=lambda wildcards: "--delete" if experiment(wildcards).image_sets[wildcards.S].keep == "none" else "",
    message:
        "{wildcards.E}: pack or delete the {wildcards.S} images of {wildcards.R} at {wildcards.N}"
    shell:
        "{params.venv}python -m promptecho benchmarks pack {params.folder:q} {params.delete} --out {output:q}"
        " 2>&1 | tee -i {log:q}"
