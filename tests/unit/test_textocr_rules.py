"""Text rendering: how recognised text is compared with what is required."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promptecho.benchmarks.textocr.rules import (
    character_error_rate,
    compare,
    edit_distance,
    language_of,
    longtext_recall,
    normalize,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.text("abAB 福é-", max_size=8)  # few letters, so that texts come close to each other


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("FRESH BREWS,\nEVERY DAY", "FRESHBREWS,EVERY DAY"),
        ("营业时间：8点", "营业时间:8点"),
        ("“Joe’s” – cafe\u0301", '"Joe\'s" - café'),
        ("a\u200bb\u00adc\u3000d", "abcd"),
        ("ＡＢＣ１２３", "ABC123"),
    ],
)
def test_equal_after_normalisation(a, b):
    assert normalize(a) == normalize(b) and character_error_rate(a, b) == 0


@pytest.mark.parametrize(
    ("required", "found", "rate"),
    [
        ("OPEN", "open", 1.0),
        ("OPEN", "0PEN", 0.25),
        ("OPEN", "OPENN", 0.25),
        ("OPEN!", "OPEN", 0.2),
        ("福到了", "福倒了", 1 / 3),
        ("OPEN", "", 1.0),
        ("A", "ABCD", 3.0),
        ("", "AB", 2.0),
        ("", "", 0.0),
    ],
)
def test_character_error_rate(required, found, rate):
    assert character_error_rate(required, found) == pytest.approx(rate)


@given(texts, texts)
def test_rate_is_zero_only_for_equal_texts(a, b):
    assert (character_error_rate(a, b) == 0) == (normalize(a) == normalize(b))
    assert character_error_rate(a, a) == 0
    assert normalize(normalize(a)) == normalize(a)


@given(words, words, words)
def test_edit_distance_is_a_metric_within_bounds(a, b, c):
    distance = edit_distance(a, b)
    assert distance == edit_distance(b, a)
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))
    assert edit_distance(a, c) <= distance + edit_distance(b, c)


@pytest.mark.parametrize(
    ("required", "lines", "edits"),
    [
        (["OPEN"], ["OPEN"], 0),
        (["FRESH BREWS EVERY DAY"], ["FRESH BREWS", "EVERY", "DAY"], 0),  # broken over lines
        (["FRESH BREWS EVERY DAY"], ["EVERY DAY", "FRESH BREWS"], 16),  # order within a text counts
        (["OPEN", "Since 1998"], ["Since 1998", "OPEN"], 0),  # order between texts does not
        (["OPEN", "Since 1998"], ["OPEN Since 1998"], 0),  # read as one line
        (["one two", "ten six"], ["one", "ten", "two", "six"], 0),  # two columns
        (["SALE", "SALE"], ["SALE", "SALE"], 0),
        (["SALE"], ["SALE", "SALE"], 4),  # doubled
        (["SALE", "SALE"], ["SALE"], 4),  # missing
        (["EVERY DAY", "BEST EVERY DAY"], ["BEST", "EVERY DAY", "EVERY DAY"], 0),
        (["OPEN"], ["0PEN"], 1),
        (["OPEN"], ["OPEN", "now"], 3),  # extra text
        (["OPEN"], [" ", "OPEN", "\u200b"], 0),
        (["OPEN"], [], 4),
        (["新年快乐", "福"], ["福", "新年", "快乐"], 0),
    ],
)
def test_required_texts_are_found_among_the_lines(required, lines, edits):
    comparison = compare(required, lines)
    assert (comparison.edits, comparison.exact) == (edits, edits == 0)
    assert comparison.characters == sum(len(normalize(text)) for text in required)
    assert comparison.error_rate == edits / comparison.characters


def test_without_required_text_nothing_is_compared():
    comparison = compare([], ["ANYTHING"])
    assert comparison.exact and (comparison.edits, comparison.characters, comparison.error_rate) == (0, 0, 0.0)


@given(st.lists(words, min_size=1, max_size=4), st.lists(words, max_size=5))
def test_comparison_bounds(required, lines):
    assume(all(normalize(text) for text in required))
    comparison = compare(required, lines)
    wanted, shown = "".join(map(normalize, required)), "".join(map(normalize, lines))
    assert abs(len(wanted) - len(shown)) <= comparison.edits <= edit_distance(wanted, shown)
    if comparison.exact:  # the same characters, whatever their order
        assert sorted(wanted) == sorted(shown)
    assert compare(required, required).exact


def test_longtext_recall_counts_words_or_characters():
    required = ["FRESH BREWS, EVERY MORNING, EVERY DAY", "Locally Roasted Since 1998"]
    assert longtext_recall(required, "Locally roasted\nsince 1998. fresh brews every DAY extra", "en") == (8, 10)
    assert longtext_recall(required, "", "en") == (0, 10)
    assert longtext_recall(["don't - stop"], "dont stop", "en") == (2, 2)  # punctuation is taken out, words stay whole
    assert longtext_recall(["本地烘焙，始于1998", "A店"], "始于1999\n本地 烘培 a店", "zh") == (9, 12)
    assert longtext_recall([], "anything", "en") == (0, 0)
    assert language_of(["OPEN", "营业"]) == "zh" and language_of(["OPEN"]) == language_of([]) == "en"


@given(st.lists(words, max_size=3), words, st.sampled_from(["en", "zh"]))
def test_longtext_recall_is_a_part_of_the_whole(required, found, language):
    recalled, of = longtext_recall(required, found, language)
    assert 0 <= recalled <= of
    assert longtext_recall(required, " ".join(required), language) == (of, of)
