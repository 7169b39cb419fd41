"""Label log-probabilities: exact tokens, independent of the batch, equal to the library's own loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_vlm import CHAT_TEMPLATE, build, image, shared_folder

from promptecho.errors import DataError, ModelError
from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.inputs import batch_inputs, label_text, render_prompt, special_tokens

QUERY = "Describe this image in detail."
LABELS = ["A red circle.", "three green triangles and a yellow star above two small blue squares", "é — 二つ 🟦", "x"]
SIZES = [(32, 32), (48, 40), (24, 64), (33, 17)]


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


def reference_loss(vlm, picture, label: str) -> float:
    """-model(**inputs, labels=...).loss on one conversation whose label tokens come after the bare prompt's."""
    prompt = render_prompt(vlm, QUERY)
    inputs = batch_inputs(vlm, [picture], [prompt + label], padding_side="right")
    length = batch_inputs(vlm, [picture], [prompt], padding_side="right")["input_ids"].shape[1]
    labels = inputs["input_ids"].clone()
    labels[:, :length] = -100
    return -vlm.model(**inputs, labels=labels).loss.item()


@pytest.mark.parametrize("label", LABELS)
def test_mean_equals_the_loss_of_transformers(vlm, label):
    for index, size in enumerate(SIZES):
        picture = image(index, size)
        [result] = label_log_probs(vlm, [picture], [label], QUERY, batch_size=1)
        assert result.mean == pytest.approx(reference_loss(vlm, picture, label), abs=1e-5)


def test_same_alone_and_in_any_batch(vlm):
    images = [image(i, SIZES[i % 4]) for i in range(7)]
    labels = [LABELS[(3 * i) % 4] for i in range(7)]
    alone = [label_log_probs(vlm, [p], [t], QUERY, batch_size=1)[0] for p, t in zip(images, labels, strict=True)]
    for batch_size in (2, 3, 7):
        for order in ([0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0, 5, 1, 3]):
            rows = label_log_probs(
                vlm, [images[i] for i in order], [labels[i] for i in order], QUERY, batch_size=batch_size
            )
            for index, row in zip(order, rows, strict=True):
                assert row.token_ids == alone[index].token_ids
                torch.testing.assert_close(row.log_probs, alone[index].log_probs, atol=1e-5, rtol=0)


def test_image_and_words_matter(vlm):
    [a], [b] = (label_log_probs(vlm, [image(i)], [LABELS[1]], QUERY, batch_size=1) for i in (0, 1))
    assert (a.log_probs - b.log_probs).abs().max() > 1e-3


def test_result_is_float32_log_probs_of_the_labels_own_tokens(vlm):
    [row] = label_log_probs(vlm, [image(0)], ["A red circle."], QUERY, batch_size=4)
    assert row.token_ids == vlm.tokenizer("A red circle.").input_ids
    assert "".join(row.tokens) == "A red circle."
    assert row.log_probs.dtype == torch.float32 and row.log_probs.shape == (len(row.tokens),)
    assert (row.log_probs < 0).all() and not row.log_probs.requires_grad


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=30))
@example("\nstarts with a newline")
@example(" starts with a space")
@example("ends with a newline\n")
@example("assistant")
@example("\u0301combining")
def test_label_tokens_decode_to_the_label_or_are_refused(vlm, label):
    try:
        found = label_text(vlm, QUERY, label, name="prompt 7")
    except DataError as error:
        assert "prompt 7" in str(error) and "\n" not in str(error)
        assert not label.strip() or label[0].isspace()
        return
    prompt = render_prompt(vlm, QUERY)
    ids = vlm.tokenizer(found.text).input_ids
    assert ids[: -len(found.label_ids)] == vlm.tokenizer(prompt).input_ids
    normalised = vlm.tokenizer.backend_tokenizer.normalizer.normalize_str(label)
    assert vlm.tokenizer.decode(found.label_ids) == normalised


def test_newline_that_merges_with_the_template_is_refused(vlm):
    with pytest.raises(DataError, match="prompt 3.*merges with the chat template"):
        label_text(vlm, QUERY, "\nA red circle.", name="prompt 3")


def test_end_token_only_when_asked(vlm):
    bare = label_text(vlm, QUERY, "A star", name="p")
    ended = label_text(vlm, QUERY, "A star", name="p", include_eos=True)
    assert ended.label_ids == bare.label_ids + [vlm.tokenizer.convert_tokens_to_ids("<|im_end|>")]
    [short] = label_log_probs(vlm, [image(0)], ["A star"], QUERY, batch_size=1)
    [long] = label_log_probs(vlm, [image(0)], ["A star"], QUERY, batch_size=1, include_eos=True)
    torch.testing.assert_close(long.log_probs[:-1], short.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("label", ["", "  \n"])
def test_empty_label_is_named(vlm, label):
    with pytest.raises(DataError, match="prompt 12: the label is empty"):
        label_log_probs(vlm, [image(0)], [label], QUERY, batch_size=1, names=["prompt 12"])


def test_control_tokens_in_a_label_are_refused(vlm):
    assert "<|im_end|>" in special_tokens(vlm)
    for token in ("<|im_end|>", "<|image_pad|>"):
        with pytest.raises(DataError, match="prompt 1: .*control token"):
            label_log_probs(vlm, [image(0)], [f"a {token} b"], QUERY, batch_size=1, names=["prompt 1"])


def test_label_beyond_the_context_names_prompt_and_lengths(vlm):
    with pytest.raises(DataError, match=r"prompt 5: the label's 2000 tokens and \d+ .*512 tokens"):
        label_log_probs(vlm, [image(0)], ["7" * 2000], QUERY, batch_size=1, names=["prompt 5"])


def test_numbers_of_images_and_labels_must_agree(vlm):
    with pytest.raises(DataError, match="1 image but 2 labels"):
        label_log_probs(vlm, [image(0)], ["a", "b"], QUERY, batch_size=1)


def test_extreme_aspect_ratio_is_refused_in_one_line(vlm):
    with pytest.raises(DataError, match="1000x1 pixels"):
        label_log_probs(vlm, [image(0, (1000, 1))], ["a"], QUERY, batch_size=1)


def test_templates_that_change_the_label(tmp_path):
    trims = CHAT_TEMPLATE.replace("{{ part.text }}", "{{ part.text | trim }}")
    vlm = load_vlm(build(tmp_path / "trims", chat_template=trims))
    assert label_text(vlm, QUERY, "A star", name="p").label_ids == vlm.tokenizer("A star").input_ids
    with pytest.raises(ModelError, match="prompt 4: the chat template .* does not give the label back"):
        label_text(vlm, QUERY, "A star ", name="prompt 4")
    shouts = CHAT_TEMPLATE.replace("{{ part.text }}", "{{ part.text | upper }}")
    vlm = load_vlm(build(tmp_path / "shouts", chat_template=shouts))
    with pytest.raises(ModelError, match="does not give the label back"):
        label_text(vlm, QUERY, "A star", name="p")


def test_white_space_of_the_template_before_the_label_is_not_the_labels(tmp_path):
    gap = CHAT_TEMPLATE.replace(
        "message.role + '\\n'", "message.role + ':' + ('\\n\\n' if message.role == 'assistant' else '\\n')"
    ).replace("assistant\\n", "assistant:")
    vlm = load_vlm(build(tmp_path / "gap", chat_template=gap))
    assert label_text(vlm, QUERY, "A star", name="p").label_ids == vlm.tokenizer("A star").input_ids


def test_broken_weights_are_one_line(tmp_path):
    folder = build(tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="broken: cannot load the model") as caught:
        load_vlm(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="unknown dtype 'float8'"):
        load_vlm(folder, dtype="float8")
