"""GenEval's real perception: Mask2Former and CLIP in their real classes, with tiny random weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from tiny_perception import save_perception, tiny_mask2former

from promptecho.benchmarks.geneval.backends import load_backend
from promptecho.benchmarks.geneval.classes import CLASSES, check_labels
from promptecho.benchmarks.geneval.clip_colors import ClipColors, clip_pixels
from promptecho.benchmarks.geneval.crops import object_crop
from promptecho.benchmarks.geneval.detector import Mask2FormerDetector, check_detector, split_model
from promptecho.benchmarks.geneval.layout import image_path
from promptecho.benchmarks.geneval.mask2former import (
    Frame,
    InstanceDetector,
    frame_of,
    instances,
    pixel_values,
    resize_mask,
)
from promptecho.benchmarks.geneval.prompts import COLORS, read_prompts
from promptecho.benchmarks.geneval.rules import Options, evaluate_image
from promptecho.benchmarks.geneval.scorer import GenevalScorer
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.errors import DataError, ModelError
from promptecho.files import read_jsonl


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_perception(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def detector(models):
    return load_backend("mask2former", ScoringOptions(backend="mask2former", model=str(models)))


def picture(seed=0, size=(96, 64)):
    """Coloured boxes on noise."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    for color in ("red", "green", "blue"):
        x, y = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        draw.rectangle((x, y, x + 18, y + 15), fill=color)
    return image


# --- classes


def test_names_and_order_are_the_official_ones(shared):
    official = (shared / "benchmarks" / "mirror" / "geneval" / "object_names.txt").read_text().splitlines()
    assert list(CLASSES) == [name.strip() for name in official]
    assert (CLASSES[64], CLASSES[65], CLASSES[66]) == ("computer mouse", "tv remote", "computer keyboard")


def test_every_official_prompt_can_be_judged(shared):
    for prompt in read_prompts(shared / "benchmarks" / "mirror" / "geneval" / "evaluation_metadata.jsonl"):
        clauses = [*prompt.include, *(prompt.exclude or [])]
        assert {clause.class_name for clause in clauses} <= set(CLASSES)


def test_labels_of_another_order_or_number_are_refused():
    older = dict(enumerate(CLASSES)) | {57: "sofa", 62: "tvmonitor", 64: "mouse", 65: "remote", 66: "keyboard"}
    check_labels("m", 80, older)
    check_labels("m", 80, {index: f"LABEL_{index}" for index in range(80)})
    with pytest.raises(ModelError, match="m: detects 133 classes"):
        check_labels("m", 133, older)
    with pytest.raises(ModelError, match="label 16 is 'cat'"):
        check_labels("m", 80, older | {15: "dog", 16: "cat"})
    shifted = {index + 1: name for index, name in older.items() if index < 79} | {0: "background"}
    with pytest.raises(ModelError, match="label 0 is 'background'"):
        check_labels("m", 80, shifted)


# --- into the detector


@pytest.mark.parametrize(
    ("original", "resized", "padded"),
    [
        ((1024, 1024), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),
        ((640, 480), (1067, 800), (1088, 800)),
        ((500, 1000), (667, 1333), (672, 1344)),
        ((1, 10000), (1, 1333), (32, 1344)),
    ],
)
def test_sizes(original, resized, padded):
    assert frame_of(*original) == Frame(original, resized, padded)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_sizes_keep_the_aspect_ratio_within_the_limits(height, width):
    frame = frame_of(height, width)
    short, long = sorted(frame.resized)
    assert short == 800 or long == 1333
    assert short <= 800
    assert long <= 1333
    scale = max(frame.resized) / max(height, width)
    for edge, resized, padded in zip((height, width), frame.resized, frame.padded, strict=True):
        assert abs(resized - edge * scale) <= 1.5 + edge * scale / max(frame.resized)
        assert padded % 32 == 0
        assert 0 <= padded - resized < 32


def test_pixels_are_those_of_the_librarys_processor_where_nothing_is_padded():
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    image = picture(size=(160, 160))
    processor = Mask2FormerImageProcessorPil(size={"shortest_edge": 800, "longest_edge": 1333}, size_divisor=32)
    theirs = processor(images=[image], return_tensors="pt")["pixel_values"]
    ours = pixel_values(image, frame_of(160, 160))
    assert ours.shape == theirs.shape == (1, 3, 800, 800)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_padding_is_zero_and_lies_right_and_below():
    image = picture(size=(100, 75))
    frame = frame_of(75, 100)
    values = pixel_values(image, frame)
    assert tuple(values.shape) == (1, 3, *frame.padded)
    height, width = frame.resized
    assert frame.padded[1] > width
    assert (values[..., width:] == 0).all()
    assert (values[..., height:, :] == 0).all()
    assert values[..., :height, :width].std() > 0.1


# --- out of the detector


def same(height, width):
    """A frame without any resizing."""
    return Frame((height, width), (height, width), (height, width))


def logits_of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log().float()


def block(height, width, box, inside, outside=-5.0):
    x1, y1, x2, y2 = box
    mask = torch.full((height, width), outside)
    mask[y1:y2, x1:x2] = inside
    return mask


def test_boxes_and_scores_of_a_known_answer():
    classes = logits_of((0.8, 0.15, 0.05), (0.1, 0.3, 0.6), (0.05, 0.9, 0.05))  # the last column is the null class
    masks = torch.stack([
        block(64, 48, (3, 10, 21, 33), np.log(3.0)),  # sigmoid(log 3) = 0.75
        block(64, 48, (40, 0, 48, 64), np.log(9.0)),  # 0.9, touching three borders
        block(64, 48, (0, 0, 0, 0), 1.0),  # empty: no object, however probable its class
    ])  # fmt: skip
    found = instances(classes, masks, same(64, 48))
    assert [(each.label, each.box) for each in found] == [
        (0, (3.0, 10.0, 21.0, 33.0)),
        (1, (40.0, 0.0, 48.0, 64.0)),
        (1, (3.0, 10.0, 21.0, 33.0)),  # the same query under its second class
        (0, (40.0, 0.0, 48.0, 64.0)),
    ]
    assert [each.score for each in found] == pytest.approx([0.6, 0.27, 0.1125, 0.09], rel=1e-5)
    assert found[0].mask.sum() == 18 * 23
    assert found[0].mask[10:33, 3:21].all()
    assert [each.score for each in instances(classes, masks, same(64, 48), 0.2)] == [found[0].score, found[1].score]


def test_a_single_pixel_is_an_object_and_logit_zero_is_outside():
    masks = torch.stack([block(8, 8, (7, 7, 8, 8), 2.0, outside=0.0)])
    (found,) = instances(logits_of((0.9, 0.1)), masks, same(8, 8))
    assert found.box == (7.0, 7.0, 8.0, 8.0)
    assert found.score == pytest.approx(0.9 / (1 + np.exp(-2)), rel=1e-5)


def test_only_the_hundred_most_probable_pairs_are_candidates():
    rng = torch.Generator().manual_seed(0)
    classes = torch.randn(3, 81, generator=rng)
    masks = torch.ones(3, 8, 8)
    found = instances(classes, masks, same(8, 8))
    assert len(found) == 100
    probabilities = classes.softmax(-1)[:, :-1].flatten().sort(descending=True).values
    inside = torch.tensor(1.0).sigmoid()
    assert [each.score for each in found] == pytest.approx((probabilities[:100] * inside).tolist(), rel=1e-4)


def bilinear(values, height, width):
    """Bilinear resizing in float64: pixel centres, edges repeated."""

    def weights(old, new):
        matrix = np.zeros((new, old))
        for i in range(new):
            at = max((i + 0.5) * old / new - 0.5, 0.0)
            low = min(int(at), old - 1)
            high = min(low + 1, old - 1)
            matrix[i, low] += 1 - (at - low)
            matrix[i, high] += at - low
        return matrix

    return weights(values.shape[0], height) @ values @ weights(values.shape[1], width).T


def by_hand(class_logits, mask_logits, frame):
    """Steps 2 to 4 query by query in float64: `[(label, score, box)]`."""
    pairs = []
    for query, row in enumerate(class_logits):
        exponent = np.exp(row - row.max())
        for label, probability in enumerate((exponent / exponent.sum())[:-1]):
            pairs.append((probability, query, label))
    found = []
    for probability, query, label in sorted(pairs, key=lambda pair: -pair[0])[:100]:
        grown = bilinear(mask_logits[query], *frame.padded)[: frame.resized[0], : frame.resized[1]]
        logits = bilinear(grown, *frame.original)
        inside = [(y, x) for y in range(logits.shape[0]) for x in range(logits.shape[1]) if logits[y, x] > 0]
        if inside:
            mean = sum(1 / (1 + np.exp(-logits[y, x])) for y, x in inside) / len(inside)
            ys, xs = [y for y, _ in inside], [x for _, x in inside]
            found.append((label, probability * mean, (min(xs), min(ys), max(xs) + 1, max(ys) + 1)))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frame", [Frame((30, 40), (48, 64), (64, 64)), Frame((53, 20), (40, 15), (64, 32))])
def test_post_processing_agrees_with_a_plain_loop(frame, seed):
    rng = np.random.default_rng(seed)
    classes = rng.normal(0, 3, (5, 9))
    coarse = rng.normal(0, 3, (5, 4, 4))
    masks = np.stack([bilinear(each, frame.padded[0] // 4, frame.padded[1] // 4) for each in coarse])
    classes, masks = classes.astype(np.float32), masks.astype(np.float32)
    expected = by_hand(classes.astype(np.float64), masks.astype(np.float64), frame)
    found = instances(torch.from_numpy(classes), torch.from_numpy(masks), frame)
    assert len(found) == len(expected) >= 5
    for each, (label, score, box) in zip(found, expected, strict=True):
        assert each.label == label
        assert each.box == box
        assert each.score == pytest.approx(score, rel=1e-4)


def test_padding_holds_no_object():
    frame = Frame((30, 30), (60, 60), (64, 64))
    masks = torch.stack([block(64, 64, (60, 0, 64, 64), 4.0), block(64, 64, (0, 60, 64, 64), 4.0)])
    assert instances(logits_of((0.9, 0.1), (0.9, 0.1)), masks, frame) == []


@st.composite
def rectangles(draw):
    height, width = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return height, width, (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))


@given(rectangles(), st.floats(0.01, 0.98), st.floats(0.1, 6))
def test_a_rectangle_is_found_where_it_is(rectangle, probability, logit):
    height, width, box = rectangle
    classes = logits_of((probability, (1 - probability) / 2, (1 - probability) / 2))
    found = instances(classes, block(height, width, box, logit)[None], same(height, width))
    (first,) = [each for each in found if each.label == 0]
    assert first.box == box
    assert first.score == pytest.approx(probability / (1 + np.exp(-logit)), rel=1e-4)


@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_a_minimum_score_only_leaves_out(seed, min_score):
    rng = torch.Generator().manual_seed(seed)
    classes, masks = 3 * torch.randn(4, 6, generator=rng), torch.randn(4, 4, 4, generator=rng)
    everything = instances(classes, masks, same(4, 4))
    expected = [each for each in everything if np.float32(each.score) > np.float32(min_score)]
    found = instances(classes, masks, same(4, 4), min_score)
    assert [(each.label, each.score, each.box) for each in found] == [
        (each.label, each.score, each.box) for each in expected
    ]


def test_the_detector_agrees_with_the_librarys_input_and_a_plain_loop(models):
    """A square image, for which the library's processor neither pads nor stretches."""
    from transformers import Mask2FormerForUniversalSegmentation
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    image = picture(size=(48, 48))
    processor = Mask2FormerImageProcessorPil(size={"shortest_edge": 800, "longest_edge": 1333})
    model = Mask2FormerForUniversalSegmentation.from_pretrained(models / "mask2former").eval()
    with torch.inference_mode():
        output = model(**processor(images=[image], return_tensors="pt"))
    classes, masks = output.class_queries_logits[0].double().numpy(), output.masks_queries_logits[0].double().numpy()
    expected = [each for each in by_hand(classes, masks, Frame((48, 48), (800, 800), (800, 800))) if each[1] > 0.1]
    found = InstanceDetector(str(models / "mask2former")).detect(image, 0.1)
    assert len(found) == len(expected) >= 5
    assert len({each.box for each in found}) > 1
    for each, (label, score, box) in zip(found, expected, strict=True):
        assert each.label == label
        assert each.score == pytest.approx(score, rel=1e-3)
        assert each.box == pytest.approx(box, abs=1)


# --- colours


def test_crops_look_to_clip_as_to_the_librarys_processor_where_the_offset_is_even():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    for size in ((224, 224), (300, 300), (100, 150), (60, 40)):
        image = picture(size=size)
        theirs = CLIPImageProcessorPil()(images=[image], return_tensors="np")["pixel_values"][0]
        assert (max(size) * 224 // min(size)) % 2 == 0
        np.testing.assert_allclose(clip_pixels(image), theirs, rtol=0, atol=1e-5)


def test_the_centre_crops_offset_is_rounded_half_to_even():
    ramp = Image.fromarray(np.tile(np.arange(227, dtype=np.uint8)[:, None, None], (1, 224, 3)))  # offset 1.5 -> 2
    first = clip_pixels(ramp)[0, 0, 0] * np.float32(0.26862954) + np.float32(0.48145466)
    assert round(float(first) * 255) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (7, 300)])
def test_any_crop_has_a_colour(models, size):
    assert ClipColors(str(models / "clip"))("dog", [Image.new("RGB", size, "red")])[0] in COLORS


def test_colours_are_those_of_clips_own_forward_pass(models):
    """Independent of the feature calls: embeddings from CLIPModel.forward, prompts one by one and without padding."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(models / "clip").eval()
    tokenizer = CLIPTokenizer.from_pretrained(models / "clip")
    crops = [object_crop(picture(seed), (5, 5, 60, 50)) for seed in range(18)]  # more than one batch
    crops += [Image.new("RGB", (30, 20), color) for color in COLORS]
    pixels = torch.stack([torch.from_numpy(clip_pixels(crop)) for crop in crops])
    name, weights = "computer mouse", []
    with torch.inference_mode():
        for color in COLORS:
            texts = [f"a photo of a {color} {name}", f"a photo of a {color}-colored {name}",
                     f"a photo of a {color} object"]  # fmt: skip
            each = [model(**tokenizer(text, return_tensors="pt"), pixel_values=pixels) for text in texts]
            mean = torch.cat([output.text_embeds for output in each]).double().mean(dim=0)
            weights.append(mean / mean.norm())
        cosine = each[0].image_embeds.double() @ torch.stack(weights).T
    best = cosine.topk(2, dim=1).values
    colors = ClipColors(str(models / "clip"))
    answers = colors(name, crops)
    clear = (best[:, 0] - best[:, 1]) > 1e-5
    assert clear.sum() > 20
    for answer, expected, sure in zip(answers, cosine.argmax(dim=1), clear, strict=True):
        assert answer == COLORS[expected] or not sure
    assert len(set(answers)) > 1
    assert colors.text_features(name) is colors.text_features(name)  # kept
    assert colors("dog", []) == []


# --- both together


def metadata(*clauses, tag="colors", **more):
    return {"tag": tag, "include": list(clauses), "prompt": "x", **more}


def test_detections_are_named_by_index_and_sorted(detector, models):
    found = InstanceDetector(str(models / "mask2former")).detect(picture(), 0.1)
    assert len({each.label for each in found}) > 1
    boxes, colors = detector(picture(), metadata({"class": "dog", "count": 1}, tag="single_object"))
    assert colors == {}
    assert sum(map(len, boxes.values())) == len(found)
    for each in found:
        assert [*each.box, each.score] in boxes[CLASSES[each.label]]
    for group in boxes.values():
        scores = [box[4] for box in group]
        assert scores == sorted(scores, reverse=True)
        assert all(score > 0.1 for score in scores)
    assert json.loads(json.dumps(boxes)) == boxes


def test_a_detector_gives_the_same_answer_again(detector, models):
    again = Mask2FormerDetector(str(models / "mask2former"), str(models / "clip"))
    boxes, _ = detector(picture(3), metadata({"class": "dog", "count": 1}))
    name = max(boxes, key=lambda each: boxes[each][0][4])
    ask = metadata({"class": name, "count": 1, "color": "red"})
    assert detector(picture(3), ask) == detector(picture(3), ask) == again(picture(3), ask)
    assert again.name == detector.name


def test_colours_are_named_where_the_rules_ask_for_them(detector, models):
    found = InstanceDetector(str(models / "mask2former")).detect(picture(), 0.1)
    top = max(found, key=lambda each: each.score)
    name = CLASSES[top.label]
    assert top.score > Options().threshold
    others = sorted({CLASSES[each.label] for each in found} - {name})
    ask = metadata({"class": name, "count": 1, "color": "red"}, {"class": others[0], "count": 1})
    boxes, colors = detector(picture(), ask)
    assert set(colors) == {name}
    assert len(colors[name]) == sum(np.float32(box[4]) > np.float32(0.3) for box in boxes[name])
    expected = ClipColors(str(models / "clip"))(name, [object_crop(picture(), top.box, top.mask)])
    assert colors[name][0] == expected[0]
    evaluate_image(ask, boxes, colors)
    below = {name: [[*boxes[name][0][:4], 0.2], *boxes[name]]}
    with pytest.raises(DataError, match="must name a colour"):
        count = len(below[name])
        evaluate_image(
            metadata({"class": name, "count": count, "color": "red"}), below, colors, Options(threshold=0.01)
        )


def test_what_the_detector_cannot_know_is_refused(detector):
    with pytest.raises(DataError, match="not keyboard, square"):
        detector(picture(), metadata({"class": "square", "count": 1}, exclude=[{"class": "keyboard", "count": 1}]))
    with pytest.raises(DataError, match="knows the colours red, .*, not grey"):
        detector(picture(), metadata({"class": "dog", "count": 1, "color": "grey"}))


def test_a_known_image_shows_a_detector_without_confidence(detector):
    boxes, _ = detector(picture(), metadata({"class": "dog", "count": 1}))
    name = max(boxes, key=lambda each: boxes[each][0][4])
    absent = next(each for each in CLASSES if each not in boxes)
    best = boxes[name][0][4]
    assert check_detector(detector, picture(), {name: 1}, best - 0.01) == []
    assert check_detector(detector, picture(), {name: 1, absent: 2}, 0.995) == [
        f"expected 1 {name} above 0.995, best scores: {best:.3f}",
        f"expected 2 {absent} above 0.995, best scores: none",
    ]


@pytest.fixture
def folder(tmp_path, detector):
    """Three prompts with two images each: one that the random detector meets, by construction, and two others."""
    boxes, _ = detector(picture(0), metadata({"class": "dog", "count": 1}))
    name = max(boxes, key=lambda each: boxes[each][0][4])
    _, colors = detector(picture(0), metadata({"class": name, "count": 1, "color": "red"}))
    absent = next(each for each in CLASSES if each not in boxes)
    rows = [
        metadata({"class": name, "count": 1}, tag="single_object"),
        metadata({"class": name, "count": 1, "color": colors[name][0]}),
        metadata({"class": name, "count": 1}, {"class": absent, "count": 5}, tag="two_object"),
    ]
    for number, row in enumerate(rows):
        for image in range(2):
            path = image_path(tmp_path / "images", number, image)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(0).save(path)
        (tmp_path / "images" / f"{number:05}" / "metadata.jsonl").write_text(json.dumps(row))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ImageFolder(tmp_path / "images", prompts, 2)


def test_from_images_to_scores(models, folder):
    scorer = GenevalScorer(ScoringOptions(backend="mask2former", model=str(models)))
    scored = scorer.score(folder)
    assert [item.outcome for item in scored.items] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert scored.summary["overall"] == pytest.approx(2 / 3)
    assert scored.raw[2]["colors"]
    record = scored.raw[0]
    assert record["options"]["threshold"] == 0.3
    assert record["options"]["counting_threshold"] == 0.9
    assert record["detector"]["min_score"] == 0.1
    assert (record["detector"]["shortest_edge"], record["detector"]["longest_edge"]) == (800, 1333)
    assert record["detector"]["clip_activation"] == "quick_gelu"
    assert scorer.judge_model.startswith("mask2former@files-")
    assert " + clip@files-" in scorer.judge_model
    assert "(transformers " in scorer.judge_model
    assert json.dumps(scored.raw) == json.dumps(scorer.score(folder).raw)


def test_other_weights_are_another_judge(models, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(models, other)
    detector = Mask2FormerDetector(str(other / "mask2former"), str(other / "clip"))
    assert detector.name == Mask2FormerDetector(*split_model(str(models))).name  # where they lie is no matter
    tiny_mask2former(seed=1).save_pretrained(other / "mask2former")
    assert Mask2FormerDetector(*split_model(str(other))).name != detector.name


def test_an_answer_that_is_not_finite_is_a_failure_of_that_image(models, tmp_path, folder):
    broken = tmp_path / "broken"
    shutil.copytree(models, broken)
    model = tiny_mask2former()
    with torch.no_grad():
        model.class_predictor.bias.fill_(float("nan"))
    model.save_pretrained(broken / "mask2former")
    options = ScoringOptions(backend="mask2former", model=str(broken))
    with pytest.raises(PerceptionFailure, match="not finite"):
        load_backend("mask2former", options)(picture(), metadata({"class": "dog", "count": 1}))
    with pytest.raises(DataError, match="failed on all 6 images; the first time: the detector's answer is not finite"):
        GenevalScorer(options).score(folder)


# --- models that can't be had


def test_names_of_models(models, tmp_path):
    defaults = ("facebook/mask2former-swin-small-coco-instance", "openai/clip-vit-large-patch14")
    assert split_model(None) == defaults
    assert split_model("facebook/mask2former-swin-large-coco-instance")[1] == defaults[1]
    assert split_model(str(models)) == (str(models / "mask2former"), str(models / "clip"))
    (tmp_path / "half" / "mask2former").mkdir(parents=True)
    with pytest.raises(ModelError, match="no folder clip/ in it; download openai/clip-vit-large-patch14 to .*/clip"):
        split_model(str(tmp_path / "half"))


def one_line_about(error, *words):
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_missing_folder_is_named(models, tmp_path):
    with pytest.raises(ModelError) as error:
        load_backend("mask2former", ScoringOptions(backend="mask2former", model=str(tmp_path / "absent")))
    one_line_about(error, str(tmp_path / "absent"), "no such Mask2Former folder")
    (tmp_path / "clip").mkdir()
    with pytest.raises(ModelError) as error:
        ClipColors(str(tmp_path / "clip"))
    one_line_about(error, str(tmp_path / "clip"), "config.json")


def test_incomplete_models_are_refused(models, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(models, broken)
    weights = broken / "mask2former" / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "class_predictor.bias"}, weights, {"format": "pt"})
    with pytest.raises(ModelError) as error:
        InstanceDetector(str(broken / "mask2former"))
    one_line_about(error, "1 weights of the detector are missing, class_predictor.bias")
    torch.save(tensors, broken / "mask2former" / "pytorch_model.bin")  # a pickle is not opened
    weights.unlink()
    with pytest.raises(ModelError) as error:
        InstanceDetector(str(broken / "mask2former"))
    one_line_about(error, "cannot load the detector", "mask2former/ and clip/")
    for file in (broken / "clip").glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError) as error:
        ClipColors(str(broken / "clip"))
    one_line_about(error, "tokenizer")
    with pytest.raises(ModelError) as error:
        ClipColors(str(models / "mask2former"))
    one_line_about(error, "colour classifier")


def test_a_panoptic_checkpoint_is_refused(tmp_path):
    tiny_mask2former(num_labels=133).save_pretrained(tmp_path / "m")
    with pytest.raises(ModelError, match="detects 133 classes"):
        InstanceDetector(str(tmp_path / "m"))


def test_an_unknown_device_is_refused(models):
    with pytest.raises(ModelError) as error:
        InstanceDetector(str(models / "mask2former"), device="nonsense")
    one_line_about(error, "cannot move the detector to nonsense")


def test_the_golden_detections_name_no_other_class(golden_folder):
    for case in read_jsonl(golden_folder / "geneval" / "cases.jsonl"):
        assert set(case["detections"]) <= set(CLASSES)


def test_masks_grow_to_the_images_size():
    frame = frame_of(37, 91)
    assert resize_mask(torch.zeros(frame.padded[0] // 4, frame.padded[1] // 4), frame).shape == (37, 91)
