# Lets `snakemake` be called from the checkout's root; the workflow itself is workflow/Snakefile.
include: "workflow/Snakefile"


if workflow.modifier.is_main_snakefile():  # as a module, this one's rules may have other names
    workflow.default_target = "all"  # an included file's first rule is not a default target
