# Scores of every benchmark at every evaluated checkpoint.


rule score:
    """Score the images of one checkpoint with one benchmark."""
    input:
        shards=scored_images,
        prompts=scored_prompts,
    output:
        "results/{E}/scores/{B}/{R}/{N}.json",
    log:
        "results/{E}/logs/score/{B}.{R}.{N}.log",
    benchmark:
        "results/{E}/timings/score/{B}.{R}.{N}.tsv"
    params:
        digest=slice_of("score", benchmark="B"),
        config=config_path,
        images=lambda wildcards, input: os.path.dirname(os.path.dirname(input.shards[0])),
        scorer=lambda wildcards: benchmark_of(wildcards).scorer,
        backend=lambda wildcards: benchmark_of(wildcards).backend,
        mode=lambda wildcards: benchmark_of(wildcards).mode,
        images_per_prompt=lambda wildcards, output: scored_image_set(wildcards).images_per_prompt,
        config_digest=lambda wildcards, output: os.path.basename(config_path(wildcards, output)).removesuffix(".yaml"),
    threads: 1
    resources:
        runtime=60,
        mem_mb=4000,
    conda:
        "../../envs/score.yaml"
    message:
        "{wildcards.E}: score {wildcards.B} of {wildcards.R} at {wildcards.N}"
    shell:
        "python -m promptecho score --config {params.config} --benchmark {wildcards.B} --scorer {params.scorer}"
        " --backend {params.backend} --mode {params.mode} --images {params.images}"
        " --prompts {input.prompts:q} --images-per-prompt {params.images_per_prompt} --experiment {wildcards.E}"
        " --run {wildcards.R} --step {wildcards.N} --config-digest {params.config_digest} --out {output}"
        " 2>&1 | tee -i {log}"
