# Lets `snakemake` be called from the checkout's root; the workflow itself is workflow/Snakefile.
include: "workflow/Snakefile"


workflow.default_target = "all"  # an included file's first rule is not a default target
