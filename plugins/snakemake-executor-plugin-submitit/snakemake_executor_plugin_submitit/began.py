"""When this process began to look at files: imported before all else of the plugin."""

import time

# Jobs that ended before Snakemake began to look at files have been seen by it; later ones have not (recovery.py).
PROCESS_BEGAN = time.time()
