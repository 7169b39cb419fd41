"""How an experiment stands: Snakemake's, Slurm's and the trainer's records joined (`promptecho status`). `report.py`
first. Nothing here imports torch, takes a lock or writes into results, but for `stop.py`, which leaves a request, and
`record.py`, by which the workflow's main process notes its jobs."""
