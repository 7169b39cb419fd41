# Where this workflow is, and where its files go, when another workflow uses it as a module (docs/module.md).
import importlib.util

from snakemake.sourcecache import LocalSourceFile

# At the time of a job, `workflow.modifier` would be the Snakefile's that was started.
MODIFIER = workflow.modifier


def _checkout():
    """The folder with this workflow and the package; None where the workflow is read from afar, and the package is an
    installed one. Not the folder of the Snakefile that was started: that may be another workflow's."""
    here = workflow.current_basedir
    if isinstance(here, LocalSourceFile):
        root = Path(here.get_path_or_uri(secret_free=True)).resolve().parent.parent
        if {"{", "}"} & set(str(root)):
            raise WorkflowError(
                f"{root}: Snakemake reads braces in the path of a workflow as wildcards; rename that folder, or move "
                "the checkout"
            )
        return root
    source = here.get_path_or_uri(secret_free=True)
    if importlib.util.find_spec("promptecho") is None:
        raise WorkflowError(
            f"{source}: the workflow's commands are in the package promptecho, which is not installed here: install it "
            "from the same version, or clone the repository and name its workflow/Snakefile"
        )
    if CONDA:
        raise WorkflowError(
            f"{source}: conda environments hold no promptecho: clone the repository and name its workflow/Snakefile, or "
            "leave --software-deployment-method out"
        )
    return None


CONDA = "conda" in [str(method) for method in workflow.deployment_settings.deployment_method]
IMAGES = "apptainer" in [str(method) for method in workflow.deployment_settings.deployment_method]
ROOT = _checkout()
if ROOT is not None and str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def placed(path):
    """A path as Snakemake writes it for inputs and outputs: with the `prefix:` of the module, where there is one."""
    return str(MODIFIER.path_modifier.modify(path))


PREFIX = placed("")
