"""The ledger: what was written before a kill is read after it, wherever the kill cut the file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, Submission

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("intend"), st.integers(1, 3)),
        st.tuples(st.just("submitted"), st.integers(0, 5)),
        st.tuples(st.just("ended"), st.integers(0, 5), st.integers(0, 2)),
    ),
    max_size=20,
)


def entries(token: str, n: int) -> list[Entry]:
    return [Entry(f"{token}-{index}", "f", "r", "smk.rule") for index in range(n)]


def play(ledger: Ledger, events) -> None:
    made: list[Submission] = []
    for kind, *numbers in events:
        if kind == "intend":
            token = f"t{len(made)}"
            made.append(Submission(token, f"/logs/{token}", entries(token, numbers[0])))
            ledger.intend(made[-1])
        elif numbers[0] < len(made):
            one = made[numbers[0]]
            if kind == "submitted":
                ledger.submitted(one, str(100 + numbers[0]))
            elif numbers[1] in one.open_indices:
                ledger.ended(one, numbers[1], "success")


def known(ledger: Ledger) -> set:
    return {(s.token, s.slurm_id, s.entries[index]) for s, index in ledger.open_tasks()}


@given(EVENTS)
def test_a_later_process_knows_the_same_open_tasks(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path)
    play(ledger, events)
    assert known(Ledger(path)) == known(ledger)
    assert known(Ledger(path)) == known(ledger)  # also after it was rewritten without what is over


@given(EVENTS, st.integers(0, 10_000))
def test_a_cut_loses_the_last_line_at_most(tmp_path_factory, events, cut):
    folder = tmp_path_factory.mktemp("ledger")
    play(Ledger(folder / "ledger.jsonl"), events)
    if not (folder / "ledger.jsonl").exists():
        return
    whole = (folder / "ledger.jsonl").read_bytes()
    part = whole[: cut % (len(whole) + 1)]
    (folder / "cut.jsonl").write_bytes(part)
    (folder / "lines.jsonl").write_bytes(part[: part.rfind(b"\n") + 1])
    assert known(Ledger(folder / "cut.jsonl")) == known(Ledger(folder / "lines.jsonl"))


def test_ids_of_tasks():
    alone = Submission("t", "/logs", entries("t", 1))
    assert alone.job_id(0) is None
    alone.slurm_id = "7"
    assert alone.job_id(0) == "7"
    array = Submission("t", "/logs", entries("t", 2), slurm_id="8")
    assert [array.job_id(index) for index in range(2)] == ["8_0", "8_1"]
