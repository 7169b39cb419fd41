"""Benchmarks, judges and published adapters in the experiment file."""

from __future__ import annotations

from typing import Any

import pytest
from test_config import changed, problems

from promptecho.config import baseline_of, evaluation_steps, parse_experiment, slice_digest
from promptecho.errors import ConfigError
from promptecho.files import digest

JUDGE: dict[str, Any] = {"kind": "openai", "model": "a-judge", "endpoint": "http://127.0.0.1:1/v1"}


def with_pairs(**benchmark: Any) -> dict[str, Any]:
    """An experiment that compares pairs of images on held-out captions by a judge."""
    raw = changed("judges.models.one", dict(JUDGE))
    raw["image_sets"]["dense"] = {"benchmark": "captions", "heldout": 4}
    raw["benchmarks"]["dense"] = {"image_set": "dense", "scorer": "densealign", "backend": "judge", "judge": "one"}
    raw["benchmarks"]["dense"].update(benchmark)
    raw["evaluate"].append({"benchmark": "dense", "at": "all"})
    raw["runs"]["authors"] = {"adapter": "owner/an-adapter", "step": 900}
    return raw


def test_pairs_score_every_checkpoint_but_the_baseline():
    config = parse_experiment(with_pairs())
    assert baseline_of(config, "dense") == ("base", 0)
    assert evaluation_steps(config, "dense", "base") == []
    assert evaluation_steps(config, "dense", "echo-s1") == [2, 4]
    assert evaluation_steps(config, "geneval", "base") == [0]

    config = parse_experiment(with_pairs(baseline="echo-s1@2"))
    assert baseline_of(config, "dense") == ("echo-s1", 2)
    assert evaluation_steps(config, "dense", "echo-s1") == [4]


def test_a_published_adapter_is_evaluated_like_a_run():
    config = parse_experiment(with_pairs())
    assert list(config.runs) == ["echo-s1", "echo-s2"]
    assert config.adapters["authors"].adapter == "owner/an-adapter"
    assert evaluation_steps(config, "dense", "authors") == evaluation_steps(config, "geneval", "authors") == [900]
    again = parse_experiment(config.model_dump(mode="json"))
    assert again == config


def test_alpha_of_a_published_adapter_is_a_number_above_zero():
    """Said beside `adapter`; as long as it is not, results of before the key are those of now."""
    entry = {"adapter": "owner/name", "step": 900}
    plain, told = (parse_experiment(changed("runs.authors", {**entry, **more})) for more in ({}, {"alpha": 128}))
    assert (plain.adapters["authors"].alpha, told.adapters["authors"].alpha) == (None, 128.0)
    before = digest({"adapter": "owner/name", "revision": None, "step": 900})
    assert slice_digest(plain, "adapter", "authors") == before != slice_digest(told, "adapter", "authors")
    for wrong in (0, -8, True, float("nan"), "all"):
        assert "runs.authors.alpha" in problems(changed("runs.authors", {**entry, "alpha": wrong}))


@pytest.mark.parametrize(
    ("benchmark", "at", "told"),
    [
        ({"judge": None}, "benchmarks.dense.judge", "names a key of judges.models"),
        ({"judge": "two"}, "benchmarks.dense.judge", "no such entry of judges.models (known: one)"),
        ({"backend": "oracle"}, "benchmarks.dense.judge", "goes with backend: judge"),
        ({"backend": "mplug", "judge": None}, "benchmarks.dense.backend", "densealign has no mplug"),
        ({"mode": "fixed"}, "benchmarks.dense.mode", "has only official"),
        ({"baseline": "echo-s1"}, "benchmarks.dense.baseline", "expected base or RUN@STEP"),
        ({"baseline": "echo-s1@3"}, "benchmarks.dense.baseline", "no checkpoint 3 (checkpoints: 2, 4)"),
        ({"baseline": "nobody@2"}, "benchmarks.dense.baseline", "no such entry of runs"),
        ({"baseline": "authors@1"}, "benchmarks.dense.baseline", "is of step 900, not 1"),
        ({"image_set": "geneval"}, "benchmarks.dense.scorer", "cannot score image set geneval"),
    ],
)
def test_impossible_benchmarks_are_refused(benchmark, at, told):
    found = problems(with_pairs(**benchmark))
    assert told in found[at], found


def test_a_baseline_is_for_pairs_alone():
    found = problems(changed("benchmarks.geneval.baseline", "echo-s1@2"))
    assert "compares no pairs" in found["benchmarks.geneval.baseline"]


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ({"budget_usd": 5}, "needs usd_per_million_input_tokens"),
        ({"kind": "local"}, "neither endpoint nor api_key_env"),
        ({"api_key": "secret"}, "is not a known key"),
    ],
)
def test_impossible_judges_are_refused(judge, told):
    found = problems(changed("judges.models.one", {**JUDGE, **judge}))
    assert told in " ".join(found.values()), found


def test_scores_run_again_for_what_decides_answers_only():
    def digest(**judge: Any) -> str:
        raw = with_pairs()
        raw["judges"]["models"]["one"].update(judge)
        return slice_digest(parse_experiment(raw), "score", benchmark="dense")

    assert digest() == digest(concurrency=2, timeout_s=5, api_key_env="A_KEY", max_calls=9)
    assert len({digest(), digest(model="another"), digest(temperature=1.0), digest(image_format="jpeg")}) == 4


def test_words_of_the_user_count_for_scores(tmp_path):
    raw = with_pairs()
    raw["judges"]["templates"] = str(tmp_path / "words")
    with pytest.raises(ConfigError, match=r"judges\.templates: .*words: no such folder"):
        slice_digest(parse_experiment(raw), "score", benchmark="dense")
    (tmp_path / "words").mkdir()
    assert slice_digest(parse_experiment(raw), "score", benchmark="dense") != slice_digest(
        parse_experiment(with_pairs()), "score", benchmark="dense"
    )


def test_an_image_set_may_have_a_size_of_its_own():
    raw = changed("image_sets.wide", {"benchmark": "captions", "heldout": 4})
    before = parse_experiment(raw)
    t2i = before.models.t2i
    assert before.image_sets["wide"].size(t2i) == (t2i.height, t2i.width)
    raw["image_sets"]["wide"]["width"] = 2 * t2i.width
    after = parse_experiment(raw)
    assert after.image_sets["wide"].size(t2i) == (t2i.height, 2 * t2i.width)
    for stage, same in (("generate", False), ("prompts", True)):
        digests = [slice_digest(config, stage, image_set="wide") for config in (before, after)]
        assert (digests[0] == digests[1]) is same
    assert slice_digest(before, "generate", image_set="geneval") == slice_digest(after, "generate", image_set="geneval")


def test_the_cells_of_dpg_are_square():
    raw = changed("image_sets.dpg", {"benchmark": "dpg", "shapes": {"per_tag": 1, "seed": 1}, "height": 128})
    assert "128 x 1024: DPG-Bench's grids have square cells" in problems(raw)["image_sets.dpg.height"]
    raw["image_sets"]["dpg"]["width"] = 128
    assert parse_experiment(raw).image_sets["dpg"].width == 128


def test_tiif_has_one_image_per_description():
    raw = changed("image_sets.tiif", {"benchmark": "tiif", "shapes": {"per_tag": 1, "seed": 1}})
    assert "set it to 1" in problems(raw)["image_sets.tiif.images_per_prompt"]


def test_what_a_judge_s_benchmark_may_say():
    """And what leaves its scores as they are."""
    assert "benchmarks.dense.questions_per_call" in problems(with_pairs(questions_per_call=2))
    raw = with_pairs()
    before = slice_digest(parse_experiment(raw), "score", benchmark="dense")
    for section, key, value, same in (
        (raw["judges"]["models"]["one"], "endpoint", "http://127.0.0.1:2/v1", True),
        (raw["judges"]["models"]["one"], "request", {"seed": 3}, False),
        (raw["judges"]["models"]["one"], "max_output_tokens", 4096, False),
        (raw["benchmarks"]["dense"], "max_failed_share", 0.05, True),
        (raw["benchmarks"]["dense"], "parser", "official", False),
        (raw["judges"], "outage_s", 5, True), (raw["judges"], "mixed_versions", "refuse", True),
    ):  # fmt: skip
        old = section.get(key)
        section[key] = value
        assert (slice_digest(parse_experiment(raw), "score", benchmark="dense") == before) == same, key
        if old is None:
            del section[key]
        else:
            section[key] = old
