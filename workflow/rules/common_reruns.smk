# Nothing finished is deleted: before any job starts, the main process refuses to make a finished checkpoint again, or
# moves it aside where `--config retrain=RUN` names it. How, is in promptecho/protect.py.
if workflow.is_main_process and not os.access(".snakemake" if os.path.isdir(".snakemake") else ".", os.W_OK):
    raise UserError(
        f"{os.getcwd()}: you may not write to .snakemake here, where Snakemake keeps its records, not even for a plan "
        "(-n): to plan, copy config/ and .snakemake/ (where there is one) to a folder of yours, link results/ there, and "
        f"start Snakemake in it with -s {workflow.main_snakefile} and the whole path of the profile"
    )
if workflow.is_main_process:  # the Snakemake of a job makes what it was told to
    from promptecho.protect import protect

    protect(workflow, EXPERIMENTS, inputs_of_experiment, placed)
