"""Snakemake executor that submits jobs to Slurm through submitit: `snakemake --executor submitit`.

Reading order: settings, resources (rule resources to sbatch options), executor (the life of a job), submitting,
submission and payload (both ends of it), job_start (Snakemake in the job), ledger, owners and recovery (what survives a
kill), watching, queue, controller, task and telling (how its end is reported).
"""

from . import began  # noqa: F401, before all else

# isort: split
from snakemake_interface_executor_plugins.settings import CommonSettings

from .executor import Executor
from .settings import ExecutorSettings

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    # Secrets stay in the environment, which sbatch passes on; in the command they would end in pickles and logs.
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
    pass_group_args=True,
)

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
