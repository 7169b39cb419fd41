# Which environment a rule's command runs in, where the site's key `envs` names a folder of those that
# `promptecho envs build` has made. Rules with `conda:` have a parameter `venv`, with which their command begins; it is
# empty without the key, so that the commands are then the same as ever.
from promptecho.envs.built import look_at
from promptecho.envs.spec import read_spec

ENVS = None if EXPERIMENTS.site.envs is None else Path(EXPERIMENTS.site.envs).absolute()
for _METHOD in ["conda"] * CONDA + ["apptainer"] * IMAGES:
    if ENVS is not None:
        raise UserError(
            f"envs: {ENVS}, and --software-deployment-method {_METHOD}: both say which environments the jobs use; leave "
            "one out"
        )
if ENVS is not None and ROOT is None:
    raise UserError(
        f"envs: {ENVS}: these environments hold no promptecho: clone the repository and name its workflow/Snakefile, or "
        "leave the key out"
    )


def _entered(name):
    """What puts an environment first on PATH, or ends the command where its Python can't be run: Snakemake's own, next on
    PATH, would do the job with other packages. Its own folder, not the link: the link may lead to a newer one while a job
    runs."""
    if ENVS is None:
        return ""
    bin_folder = os.path.join(os.path.realpath(ENVS / name), "bin")
    python = os.path.join(bin_folder, "python")
    what = shlex.quote(f"environment {name}: {python} can't be run on ")
    fix = shlex.quote("; every node must see it, and the Python that it was made with (docs/environments.md)")
    return (
        f'[ -x {shlex.quote(python)} ] || {{ echo {what}"$(uname -n)"{fix} >&2; exit 1; }}; '
        f'export PATH={shlex.quote(bin_folder)}:"$PATH"; '
    )


def venv(name):
    """A parameter function: how a command enters the environment of this name. It takes `output` so that Snakemake does
    not record it."""

    def value(wildcards, output):
        return _entered(name)

    return value


def scoring_venv(wildcards, output):
    return _entered(Path(scoring_environment(wildcards)).stem)


def missing_envs(jobs):
    """A line for each environment that one of `jobs` needs and that is not there, or not the one of its file."""
    specs = [job.conda_env_spec for job in jobs] if ENVS is not None else []
    files = dict.fromkeys(Path(spec.file.get_path_or_uri(secret_free=True)) for spec in specs if spec is not None)
    found = [look_at(ENVS, read_spec(file)) for file in files]
    return [one.line for one in found if one.state != "current"]
