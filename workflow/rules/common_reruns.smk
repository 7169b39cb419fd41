# Nothing finished is deleted: before any job starts, the main process refuses to make a finished checkpoint again, or
# moves it aside where `--config retrain=RUN` names it. How, is in promptecho/protect.py.
from promptecho.protect import protect

protect(workflow, EXPERIMENTS, inputs_of_experiment, placed)
