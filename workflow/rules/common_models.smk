# Models that are not here are said once, before the first job starts, rather than by each of many shards. Only those of
# jobs that are about to run are looked for: tables of a finished run need none.

from promptecho.config.job_sizes import asks_elsewhere


def _models_of_job(job):
    """Keys of the configuration that name the models of a job."""
    kind, names = job.rule.name, job.wildcards
    if kind == "caption_shard" and asks_elsewhere(experiment(names)):
        return set()
    if kind in ("caption_shard", "captions"):
        return {"models.vlm"} if experiment(names).captions.prompts is None else set()
    if kind == "train":
        rewards = {"models.t2i", *configuration.reward_models(experiment(names), names.R)}
        vlms = set(configuration.run_vlms(experiment(names), names.R))
        own = {"training.reward_vlm"} if f"runs.{names.R}.reward_vlm" in vlms else set()
        return rewards | vlms | own
    if kind in ("generate_together", "generate_shard", "import_adapter"):
        return {f"runs.{names.R}"} | ({"models.t2i"} if kind != "import_adapter" else set())
    if kind == "guard":
        index, guard = guards_config.guard_entry(experiment(names), names.G)
        asked = "models.vlm" if guard.vlm is None and guard.reward.needs_vlm else f"models.vlms.{guard.vlm}"
        return {asked, f"guards.{index}.{guard.name}"}
    if kind in ("judge", "score"):
        return {f"benchmarks.{names.B}", f"judges.models.{benchmark_of(names).judge}"}
    return set()


def missing_models(jobs):
    """A line for each model that one of `jobs` needs and that is not available."""
    from promptecho.models.inventory import unavailable_models

    wanted = {}
    for job in jobs:
        if keys := _models_of_job(job):
            wanted.setdefault(job.wildcards.E, set()).update(keys)
    lines = {}
    for name, keys in wanted.items():
        lines |= dict.fromkeys(unavailable_models(EXPERIMENTS[name], keys))
    return list(lines)


onstart:
    if workflow.is_main_process and not workflow.touch:
        for what, missing in (("models", missing_models), ("environments", missing_envs)):
            try:
                problems = missing(workflow.dag.needrun_jobs())
            except PromptEchoError as error:
                problems = str(error).splitlines()
            if problems:
                raise UserError(f"{what} are missing; nothing was started:\n" + "\n".join(problems))
