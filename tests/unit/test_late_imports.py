"""SciPy stays out of a command's start, and is there where something uses it."""

from __future__ import annotations

import subprocess
import sys

OURS = """
import sys
from promptecho.late_imports import import_late
import_late()
import_late()
assert len([1 for finder in sys.meta_path if type(finder).__module__ == "promptecho.late_imports"]) == 1
"""
OUT = """
from diffusers.schedulers import FlowMatchEulerDiscreteScheduler as Scheduler, LMSDiscreteScheduler
from transformers.loss import loss_for_object_detection as loss
assert "scipy" not in sys.modules
"""
USED = """
scheduler = Scheduler(use_beta_sigmas=True)
scheduler.set_timesteps(4)
print(scheduler.sigmas.tolist())
import torch
print(loss.linear_sum_assignment(torch.tensor([[4.0, 1.0], [2.0, 3.0]]))[1].tolist())
lms = LMSDiscreteScheduler()
lms.set_timesteps(4)
print(lms.get_lms_coefficient(2, 2, 0))
import scipy.stats
assert scipy.stats.norm.cdf(0) == 0.5 and sys.modules["scipy"].__spec__.loader is not None
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scipy_stays_out_until_it_is_used_and_does_the_same_then():
    plain = run(
        "import sys\n" + OUT.replace('assert "scipy" not in sys.modules', 'assert "scipy" in sys.modules') + USED
    )
    assert run(OURS + OUT + USED) == plain and plain.count("\n") == 3


def test_a_module_that_one_of_these_imports_gets_scipy_itself(tmp_path):
    own = "import scipy.stats\nassert isinstance(scipy.stats.norm, scipy.stats.rv_continuous)\n"
    (tmp_path / "outside.py").write_text(own)
    (tmp_path / "inside.py").write_text("import scipy.stats, outside\nkept_out = type(scipy).__name__ == '_StandIn'\n")
    (tmp_path / "later.py").write_text("import scipy.stats\nkept_out = type(scipy).__name__ == '_StandIn'\n")
    run(
        f"{OURS}\nfrom promptecho import late_imports\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "late_imports.KEPT_OUT['inside'] = late_imports.KEPT_OUT['later'] = late_imports.SCIPY\nimport inside, later\n"
        "assert inside.kept_out and inside.scipy.stats.norm.cdf(0) == 0.5\n"
        "assert not later.kept_out and later.scipy is sys.modules['scipy']"  # it was imported by then
    )
