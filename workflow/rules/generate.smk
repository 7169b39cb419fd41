# Images of every checkpoint on the prompts of every image set.


rule benchmark_prompts:
    """Write an image set's prompts: over the embedded world's vocabulary, or held-out captions."""
    input:
        unpack(prompts_source),
    output:
        "results/{E}/prompts/{S}/metadata.jsonl",
    log:
        "results/{E}/logs/benchmark_prompts/{S}.log",
    benchmark:
        "results/{E}/timings/benchmark_prompts/{S}.tsv"
    localrule: True
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        venv=venv("score"),
        digest=slice_of("prompts", image_set="S"),
        command=prompts_command,
    message:
        "{wildcards.E}: write the prompts of image set {wildcards.S}"
    shell:
        "{params.venv}python -m promptecho {params.command} --out {output:q}" " 2>&1 | tee -i {log:q}"


rule import_adapter:
    """Take a published adapter into the experiment, in the layout of its own ones."""
    output:
        directory("results/{E}/adapters/{R}"),
    log:
        "results/{E}/logs/import_adapter/{R}.log",
    benchmark:
        "results/{E}/timings/import_adapter/{R}.tsv"
    localrule: True  # it may be downloaded, and compute nodes may have no internet
    conda:
        "../../envs/generate.yaml"
    threads: 1
    resources:
        runtime=60,
        mem_mb=4000,
    params:
        venv=venv("generate"),
        digest=made_from("adapter", run="R"),
        config=config_path,
        source=published_adapter,
    message:
        "{wildcards.E}: import the adapter {wildcards.R}"
    shell:
        "{params.venv}python -m promptecho adapter import --config {params.config:q} {params.source} --out {output:q}"
        " 2>&1 | tee -i {log:q}"


rule generate_together:
    """Generate the images of all image sets that name the same job, from one checkpoint, in one process."""
    input:
        unpack(evaluated_adapter),
        prompts=prompts_together,
    output:
        # It says only that the process has ended. Each shard's own job looks at what is there, by its own digest.
        "results/{E}/work/generate_together/{R}/{N}/{J}.done",
    log:
        "results/{E}/logs/generate_together/{R}.{N}.{J}.log",
    benchmark:
        "results/{E}/timings/generate_together/{R}.{N}.{J}.tsv"
    conda:
        "../../envs/generate.yaml"
    threads: asks("generate", "threads", images_on_gpu, here=1)
    resources:
        runtime=asks("generate", "runtime", images_on_gpu, here=240),
        mem_mb=asks("generate", "mem_mb", images_on_gpu, here=4000),
        gpu=gpus_of("generate_together", images_on_gpu),
        gpus_per_node=asks("generate", "gpus_per_node", images_on_gpu),
        resumable=True,
    params:
        venv=venv("generate"),
        config=config_path,
        adapter=lambda wildcards, input: f"--adapter {shlex.quote(input.adapter)}" if "adapter" in input.keys() else "",
        shards=options_together,
        sets=sets_together,
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: generate the images of {wildcards.R} at {wildcards.N} together: {params.sets}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho generate --config {params.config:q} --run {wildcards.R} --step {wildcards.N}"
        " {params.adapter} {params.shards} --threads {threads} --images-only {output:q}"
        " 2>&1 | tee -i {log:q}"


rule generate_shard:
    """Generate one shard of an image set from one checkpoint (the run `base` has none)."""
    input:
        unpack(evaluated_adapter),
        unpack(images_made_together),
        prompts=image_set_prompts,
    output:
        "results/{E}/images/{R}/{N}/{S}/shards/{K}.jsonl",
    log:
        "results/{E}/logs/generate_shard/{R}.{N}.{S}.{K}.log",
    benchmark:
        "results/{E}/timings/generate_shard/{R}.{N}.{S}.{K}.tsv"
    conda:
        "../../envs/generate.yaml"
    threads: asks("generate", "threads", images_on_gpu, here=1)
    resources:
        runtime=asks("generate", "runtime", images_on_gpu, here=240),
        mem_mb=asks("generate", "mem_mb", images_on_gpu, here=4000),
        gpu=gpus_of("generate_shard", images_on_gpu),
        gpus_per_node=asks("generate", "gpus_per_node", images_on_gpu),
        resumable=True,
    params:
        venv=venv("generate"),
        digest=wanted_images,
        num_shards=lambda wildcards: experiment(wildcards).image_sets[wildcards.S].num_shards,
        config=config_path,
        adapter=lambda wildcards, input: f"--adapter {shlex.quote(input.adapter)}" if "adapter" in input.keys() else "",
        out=lambda wildcards, output: os.path.dirname(os.path.dirname(output[0])),
        work=UNFINISHED_IMAGES,
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: generate {wildcards.S} images of {wildcards.R} at {wildcards.N}, "
        "shard {wildcards.K} of {params.num_shards}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho generate --config {params.config:q} --run {wildcards.R} --step {wildcards.N}"
        " {params.adapter} --image-set {wildcards.S} --prompts {input.prompts:q}"
        " --shard {wildcards.K} --num-shards {params.num_shards} --threads {threads}"
        " --out {params.out:q} --work {params.work:q}"
        " 2>&1 | tee -i {log:q}"
