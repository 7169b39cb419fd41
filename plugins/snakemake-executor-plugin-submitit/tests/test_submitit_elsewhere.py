"""Jobs of this working folder that another log folder's ledger knows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import identity
from snakemake_executor_plugin_submitit.elsewhere import Elsewhere
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, Submission


def job(output: str):
    rule = SimpleNamespace(name="part")
    return SimpleNamespace(rule=rule, output=[output], wildcards_dict={"k": output}, is_group=lambda: False)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Of a queue with these rows."""

    def answer(*rows: str) -> Elsewhere:
        path = tmp_path / "bin" / "squeue"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/bash\n" + ("\n".join(f"echo '{row}'" for row in rows) or "exit 1") + "\n")
        path.chmod(0o755)
        return Elsewhere.read(tmp_path / "mine", tmp_path / "flow")

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "mine").mkdir()
    return answer


def test_jobs_of_another_log_folder_are_refused_as_long_as_they_are_in_the_queue(tmp_path, read):
    other, flow = tmp_path / "other log", tmp_path / "flow"
    other.mkdir()
    folder = other / "part" / "part-ab"
    jobs = [job(name) for name in ("a", "b", "c")]
    ledger = Ledger(other / "ledger.jsonl")
    one = Submission("ab", str(folder), [Entry(identity.key_of(job), "f", "r", "n") for job in jobs])
    ledger.intend(one)
    ledger.submitted(one, "12")
    ledger.ended(one, 2, "success")
    script = folder / "submission.sh"
    found = read(f"12_0|{flow}|{script}", f"12_2|{flow}|{script}", f"13|{flow}|/x/submission.sh", f"14|{flow}|(null)")
    found.refuse(jobs[1:])  # the second has ended and is not read yet; the third is done
    with pytest.raises(WorkflowError, match=rf"^part k=a \(Slurm job 12_0\): .*submitit-logdir {other}: "):
        found.refuse(jobs)
    for rows in ([f"12_0|/elsewhere|{script}"], [f"15|{flow}|{tmp_path / 'mine/part/part-ab/submission.sh'}"], []):
        read(*rows).refuse(jobs)


def test_a_job_whose_id_a_kill_has_kept_from_the_ledger_is_known_by_its_script(tmp_path, read):
    other, flow = tmp_path / "other", tmp_path / "flow"
    other.mkdir()
    folder = other / "part" / "part-ab"
    entry = Entry(identity.key_of(job("a")), "f", "r", "n")
    Ledger(other / "ledger.jsonl").intend(Submission("ab", str(folder), [entry]))
    with pytest.raises(WorkflowError, match="Slurm job 12"):
        read(f"12|{flow}|{folder}/submission.sh").refuse([job("a")])
