# Training: a chain of segments, one per checkpoint, each resuming from the one before it.


rule train:
    """Train run {R} from its previous checkpoint to iteration {N}."""
    input:
        unpack(previous_checkpoint),
        unpack(training_inputs),
    output:
        adapter=directory("results/{E}/runs/{R}/{N}/adapter"),
        state=directory("results/{E}/runs/{R}/{N}/state"),
        metrics="results/{E}/runs/{R}/{N}/metrics.jsonl",
    log:
        "results/{E}/logs/train/{R}.{N}.log",
    benchmark:
        "results/{E}/timings/train/{R}.{N}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: asks("train", "threads", training_on_gpu, here=2)  # of each process
    resources:
        runtime=asks("train", "runtime", training_on_gpu, here=240),
        mem_mb=asks("train", "mem_mb", training_on_gpu, here=6000),  # of each node
        gpu=gpus_of("train", training_on_gpu),
        gpus_per_node=asks("train", "gpus_per_node", training_on_gpu),
        # Processes of DeepSpeed; more than one node needs Slurm.
        nodes=asks("train", "nodes", training_on_gpu, here=1),
        tasks_per_node=asks("train", "tasks_per_node", training_on_gpu, here=1),
        # It goes on from its last state, so a time limit is no failure.
        resumable=True,
    params:
        venv=venv("train"),
        digest=made_from("train", run="R"),
        config=config_path,
        resume=training_begin,
        heldout=lambda wildcards, input: f"--heldout {shlex.quote(input.heldout)}" if "heldout" in input.keys() else "",
        out=lambda wildcards, output: os.path.dirname(output.adapter),
        # Written while the segment runs, so no output either.
        trackers=lambda wildcards, output: placed(f"results/{wildcards.E}"),
        # The rolling state of a running segment is no output: Snakemake deletes outputs when a job starts again.
        work=work_folder("train", "train/{R}/{N}", run="R"),
        launcher=ranks_launcher,
    message:
        "{wildcards.E}: train {wildcards.R} to iteration {wildcards.N}"
    shell:
        "{params.venv}{params.launcher}python -m promptecho train --config {params.config:q} --run {wildcards.R} --to {wildcards.N}"
        " --captions {input.captions:q} {params.heldout} {params.resume} --threads {threads} --out {params.out:q}"
        " --work {params.work:q} --trackers {params.trackers:q}"
        # An executor names the file with which it asks the job to save and leave.
        ' ${{SNAKEMAKE_STOP_FILE:+--stop-file "$SNAKEMAKE_STOP_FILE"}}'
        " 2>&1 | tee -i {log:q}"
