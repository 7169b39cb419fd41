# Training captions: render or read images, caption them shard by shard, merge, hold out.


rule training_images:
    """Render the embedded world's training images."""
    output:
        directory("results/{E}/captions/images"),
    log:
        "results/{E}/logs/training_images.log",
    benchmark:
        "results/{E}/timings/training_images.tsv"
    conda:
        "../../envs/score.yaml"
    threads: 1
    resources:
        runtime=30,
        mem_mb=2000,
    params:
        venv=venv("score"),
        digest=slice_of("images"),
        number=lambda wildcards: experiment(wildcards).captions.shapes.count,
        seed=lambda wildcards: seed_and_world(experiment(wildcards).captions.shapes),
        images_list=images_list,
    message:
        "{wildcards.E}: render {params.number} training images"
    shell:
        "{params.venv}python -m promptecho shapes render --count {params.number} --seed {params.seed} --out {output:q}"
        " --list {params.images_list:q}"
        " 2>&1 | tee -i {log:q}"


rule caption_shard:
    """Caption one shard of the images."""
    input:
        images=captioned_images,
    output:
        "results/{E}/captions/shards/{shard}.h5",
    log:
        "results/{E}/logs/caption_shard/{shard}.log",
    benchmark:
        "results/{E}/timings/caption_shard/{shard}.tsv"
    conda:
        "../../envs/caption.yaml"
    threads: asks("caption", "threads", captions_on_gpu, here=1)
    resources:
        runtime=asks("caption", "runtime", captions_on_gpu, here=240),
        mem_mb=asks("caption", "mem_mb", captions_on_gpu, here=4000),
        gpu=gpus_of("caption_shard", captions_on_gpu),
        gpus_per_node=asks("caption", "gpus_per_node", captions_on_gpu),
        resumable=True,
    params:
        venv=venv("caption"),
        digest=made_from("caption"),
        num_shards=lambda wildcards: experiment(wildcards).captions.num_shards,
        config=config_path,
        images_list=images_list,
        work=work_folder("caption", "caption_shard/{shard}"),
        # It takes `output`, so Snakemake does not record it.
        earlier=lambda wildcards, output: placed(
            f"results/{wildcards.E}/captions.replaced-*/shards/{wildcards.shard}.h5"
        ),
        # Of a server that the job starts (captions.server.command).
        server_log=lambda wildcards, output: placed(
            f"results/{wildcards.E}/logs/caption_shard/{wildcards.shard}.server.log"
        ),
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: caption shard {wildcards.shard} of {params.num_shards}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho caption shard --config {params.config:q} --images {input.images:q}"
        " --list {params.images_list:q} --shard {wildcards.shard} --num-shards {params.num_shards} --threads {threads}"
        " --work {params.work:q} --earlier {params.earlier:q} --server-log {params.server_log:q} --out {output:q}"
        " 2>&1 | tee -i {log:q}"


rule captions:
    """Merge the shards, or take the user's prompts; cut to length; hold out a test set."""
    input:
        unpack(captions_source),
    output:
        captions="results/{E}/captions/captions.h5",
        heldout="results/{E}/captions/heldout.jsonl",
    log:
        "results/{E}/logs/captions.log",
    benchmark:
        "results/{E}/timings/captions.tsv"
    conda:
        "../../envs/caption.yaml"
    threads: 1
    resources:
        runtime=60,
        mem_mb=4000,
    params:
        venv=venv("caption"),
        digest=made_from("merge"),
        config=config_path,
        source=lambda wildcards, input: (
            f"prompts --prompts {shlex.quote(input.prompts)}"
            if "prompts" in input.keys()
            else f"merge --shards {shlex.join(input.shards)} {merged_images(wildcards)}"
        ),
    message:
        "{wildcards.E}: merge the captions and keep some out of training"
    shell:
        "{params.venv}python -m promptecho caption {params.source} --config {params.config:q}"
        " --out {output.captions:q} --heldout-out {output.heldout:q}"
        " 2>&1 | tee -i {log:q}"


rule image_sizes:
    """Write down how large the image of each caption is, for runs with size_by: image."""
    input:
        captions="results/{E}/captions/captions.h5",
        heldout="results/{E}/captions/heldout.jsonl",
    output:
        "results/{E}/captions/image_sizes.jsonl",
    log:
        "results/{E}/logs/image_sizes.log",
    benchmark:
        "results/{E}/timings/image_sizes.tsv"
    conda:
        "../../envs/caption.yaml"
    threads: 1
    resources:
        runtime=60,
        mem_mb=4000,
    params:
        venv=venv("caption"),
        config=config_path,
        images=sized_images,
    message:
        "{wildcards.E}: write down how large the captioned images are"
    shell:
        "{params.venv}python -m promptecho caption sizes --config {params.config:q} {params.images}"
        " --captions {input.captions:q} --heldout {input.heldout:q} --out {output:q}"
        " 2>&1 | tee -i {log:q}"
