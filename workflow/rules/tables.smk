# Tables. They take score files alone, so they are made again in seconds, without models, GPU or network.


rule table:
    """Compute one table of an experiment and write it in five formats, one of them in two lengths."""
    input:
        scores=lambda wildcards: score_files(wildcards.E, wildcards.table),
        guards=lambda wildcards: guard_files(wildcards.E, wildcards.table),
    output:
        md="results/{E}/tables/{table}.md",
        html=report(
            "results/{E}/tables/{table}.html",
            caption="../report/table.rst",
            category="{E}",
            labels={"content": "result table", "of": "{table}"},
        ),
        csv="results/{E}/tables/{table}.csv",
        tex="results/{E}/tables/{table}.tex",
        short_tex="results/{E}/tables/short/{table}.tex",
        json="results/{E}/tables/{table}.json",
    log:
        "results/{E}/logs/table/{table}.log",
    benchmark:
        "results/{E}/timings/table/{table}.tsv"
    wildcard_constraints:
        table=r"[^/]+",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        venv=venv("tables"),
        digest=slice_of("tables", benchmark="table"),
        refused=lambda wildcards: refused_by_table(wildcards.E, wildcards.table),
        scorer=lambda wildcards: EXPERIMENTS[wildcards.E].benchmarks[wildcards.table].scorer,
        out=lambda wildcards, output: os.path.dirname(output.md),
        plugins=plugins_option,
        guards=guards_option,
    message:
        "{wildcards.E}: write table {wildcards.table}"
    shell:
        "{params.venv}python -m promptecho tables --table {params.scorer} --benchmark {wildcards.table} --scores {input.scores:q}"
        " --out {params.out:q} {params.refused} {params.plugins} {params.guards}"
        " 2>&1 | tee -i {log:q}"


rule tables:
    """All tables of the listed experiments."""
    input:
        listed_tables(),


rule paper_tables:
    """Make the paper's tables from the scores of the listed experiments, the published numbers beside them."""
    input:
        [path for scorer in published().scorers for path in listed_scores(scorer)],
    output:
        report(
            directory("results/paper/tables"),
            caption="../report/paper.rst",
            category="The paper's tables",
            labels={"content": "result table", "of": "{name}"},
            patterns=["{name}.html"],
        ),
    log:
        "results/paper/logs/paper_tables.log",
    benchmark:
        "results/paper/timings/paper_tables.tsv"
    localrule: True
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        venv=venv("tables"),
        digest=configuration.code_digest(*TABLES_CODE, *folders_of(published().scorers)),
        rows=paper_rows(),
        refused=refused_by_paper(),
    message:
        "write the paper's tables"
    shell:
        "{params.venv}python -m promptecho tables --paper all --scores {input:q} --out {output:q} {params.rows} {params.refused}"
        " 2>&1 | tee -i {log:q}"


rule paper:
    """The paper's tables."""
    input:
        "results/paper/tables",
