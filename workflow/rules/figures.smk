# Figures from score files, metrics and images that are there already: no model runs, no GPU; but for the pages of words, for
# which a VLM reads the images.


rule curves:
    """Draw a benchmark's scores of an experiment's runs against the iteration."""
    input:
        scores=lambda wildcards: score_files(wildcards.E, wildcards.B),
        guards=lambda wildcards: guard_files(wildcards.E, wildcards.B),
    output:
        png="results/{E}/figures/curves_{B}.png",
        html=report(
            "results/{E}/figures/curves_{B}.html",
            caption="../report/curves.rst",
            category="{E}",
            labels={"content": "scores by iteration", "of": "{B}"},
        ),
        pdf="results/{E}/figures/curves_{B}.pdf",
        single="results/{E}/figures/single_column/curves_{B}.pdf",
        json="results/{E}/figures/curves_{B}.json",
    log:
        "results/{E}/logs/curves/{B}.log",
    benchmark:
        "results/{E}/timings/curves/{B}.tsv"
    localrule: True
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        venv=venv("tables"),
        digest=lambda wildcards: figures_code(wildcards.E, wildcards.B),
        plugins=plugins_option,
        guards=guards_option,
        out=lambda wildcards, output: os.path.dirname(output.png),
    message:
        "{wildcards.E}: draw the scores on {wildcards.B}"
    shell:
        "{params.venv}python -m promptecho figures curves {input.scores:q} --benchmark {wildcards.B} --out {params.out:q} {params.plugins} {params.guards}"
        " 2>&1 | tee -i {log:q}"


rule training_curves:
    """Draw reward, KL and diversity of an experiment's runs against the iteration."""
    input:
        metrics=trained_metrics,
    output:
        png="results/{E}/figures/training.png",
        html=report(
            "results/{E}/figures/training.html",
            caption="../report/training.rst",
            category="{E}",
            labels={"content": "training curves", "of": "all runs"},
        ),
        pdf="results/{E}/figures/training.pdf",
        single="results/{E}/figures/single_column/training.pdf",
        json="results/{E}/figures/training.json",
    log:
        "results/{E}/logs/training_curves.log",
    benchmark:
        "results/{E}/timings/training_curves.tsv"
    localrule: True
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        venv=venv("tables"),
        digest=lambda wildcards: figures_code(wildcards.E),
        out=lambda wildcards, output: os.path.dirname(output.png),
    message:
        "{wildcards.E}: draw how the runs trained"
    shell:
        "{params.venv}python -m promptecho figures training {input.metrics:q} --out {params.out:q}"
        " 2>&1 | tee -i {log:q}"


rule samples:
    """Show the images of a run's checkpoints on the same prompts and noise."""
    input:
        shards=sampled_shards,
        scores=sampled_scores,
    output:
        png="results/{E}/figures/samples_{R}.png",
        html=report(
            "results/{E}/figures/samples_{R}.html",
            caption="../report/samples.rst",
            category="{E}",
            labels={"content": "samples of images", "of": "{R}"},
        ),
        pdf="results/{E}/figures/samples_{R}.pdf",
        single="results/{E}/figures/single_column/samples_{R}.pdf",
        json="results/{E}/figures/samples_{R}.json",
    log:
        "results/{E}/logs/samples/{R}.log",
    benchmark:
        "results/{E}/timings/samples/{R}.tsv"
    localrule: True
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        venv=venv("tables"),
        digest=lambda wildcards: figures_code(wildcards.E, sampled_benchmark(wildcards.E, wildcards.R)),
        plugins=plugins_option,
        images=lambda wildcards, input: list(
            dict.fromkeys(os.path.dirname(os.path.dirname(shard)) for shard in input.shards)
        ),
        scores=lambda wildcards, input: os.path.dirname(os.path.dirname(input.scores[0])),
    message:
        "{wildcards.E}: show samples of {wildcards.R}"
    shell:
        "{params.venv}python -m promptecho figures samples {params.images:q} --scores {params.scores:q} --out {output.png:q} {params.plugins}"
        " 2>&1 | tee -i {log:q}"


rule sample_words:
    """Have the VLM of a run's reward read the prompts of its samples word by word on the images of every checkpoint."""
    input:
        shards=sampled_shards,
        scores=sampled_scores,
    output:
        html=report(
            "results/{E}/figures/words_{R}.html",
            caption="../report/words.rst",
            category="{E}",
            labels={"content": "samples word by word", "of": "{R}"},
        ),
        json="results/{E}/figures/words_{R}.json",
    log:
        "results/{E}/logs/sample_words/{R}.log",
    benchmark:
        "results/{E}/timings/sample_words/{R}.tsv"
    conda:
        "../../envs/caption.yaml"
    threads: asks("caption", "threads", words_on_gpu, here=1, seen=as_reader)
    resources:
        runtime=60,
        mem_mb=asks("caption", "mem_mb", words_on_gpu, here=4000, seen=as_reader),
        gpu=gpus_of("sample_words", words_on_gpu),
        gpus_per_node=asks("caption", "gpus_per_node", words_on_gpu, seen=as_reader),
    params:
        venv=venv("caption"),
        digest=words_code,
        settings=words_settings,
        config=config_path,
        images=lambda wildcards, input: list(
            dict.fromkeys(os.path.dirname(os.path.dirname(shard)) for shard in input.shards)
        ),
        scores=lambda wildcards, input: os.path.dirname(os.path.dirname(input.scores[0])),
        launcher=gpus_launcher,
    message:
        "{wildcards.E}: read the samples of {wildcards.R} word by word"
    shell:
        "{params.venv}{params.launcher}python -m promptecho figures words {params.images:q} --scores {params.scores:q}"
        " --config {params.config:q} --run {wildcards.R} --out {output.html:q}"
        " 2>&1 | tee -i {log:q}"


rule words:
    """The samples of all runs of the listed experiments, word by word."""
    input:
        listed_words(),


rule browse_page:
    """Write the page on which a benchmark's results of an experiment are looked through."""
    input:
        scores=lambda wildcards: score_files(wildcards.E, wildcards.B),
        shards=browsed_shards,
        words=browsed_words,
    output:
        "results/{E}/browse/{B}.html",
    log:
        "results/{E}/logs/browse_page/{B}.log",
    benchmark:
        "results/{E}/timings/browse_page/{B}.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 2
    resources:
        runtime=60,
        mem_mb=4000,
    params:
        venv=venv("tables"),
        digest=browse_code,
        config=config_path,
        results=lambda wildcards, output: os.path.dirname(os.path.dirname(output[0])),
        out=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "{wildcards.E}: write the page to browse {wildcards.B}"
    shell:
        "{params.venv}python -m promptecho browse {params.results:q} --benchmark {wildcards.B} --config {params.config:q}"
        " --out {params.out:q} --threads {threads}"
        " 2>&1 | tee -i {log:q}"


rule browse:
    """Pages to look through all results of the listed experiments."""
    input:
        listed_pages(),


rule figures:
    """All figures of the listed experiments."""
    input:
        listed_figures(),
