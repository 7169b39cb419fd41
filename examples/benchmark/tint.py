"""The benchmark `tint`: does an image show the colour that its prompt names?

Copy this folder and change it; docs/extending.md explains every part.
"""

from dataclasses import asdict, dataclass
from statistics import fmean

from promptecho import benchmarks as pe

GROUPS = {"warm": "Warm", "cold": "Cold"}
COLOURS = {"red": (216, 38, 38), "yellow": (242, 200, 28), "green": (44, 160, 60), "blue": (38, 84, 216)}
NEAR, ENOUGH = 60, 0.02  # distance in RGB, and the share of an image's pixels


@dataclass(frozen=True)
class Prompt:
    """A row of a prompt file."""

    data_id: str
    prompt: str
    group: str
    rgb: tuple[int, int, int]


def parse(row, where):
    """A row, checked; `where` names it in an error."""
    rgb, group = row.get("rgb"), row.get("group")
    if not (isinstance(rgb, list) and len(rgb) == 3 and all(type(part) is int for part in rgb)):
        raise pe.DataError(f"{where}: rgb {rgb!r}: expected three whole numbers")
    if group not in GROUPS:
        raise pe.DataError(f"{where}: group {group!r}: expected one of {', '.join(GROUPS)}")
    return Prompt(pe.read_id(row.get("data_id"), where), pe.read_text(row, "prompt", where), group, tuple(rgb))


def tag_of(prompt):
    """By what `benchmarks.NAME.limit` is shared out."""
    return prompt.group


def write_shapes_prompts(per_tag, seed, out):
    """Prompts over the embedded world. `seed` changes nothing: the colours are all that there is to ask."""
    from promptecho.files import write_jsonl

    rows = [
        {"data_id": f"{colour}-{number}", "prompt": f"a photo of a {colour} {shape}", "group": group, "rgb": [*rgb]}
        for number, shape in zip(range(per_tag), ("circle", "square", "star"), strict=False)
        for (colour, rgb), group in zip(COLOURS.items(), ("warm", "warm", "cold", "cold"), strict=True)
    ]
    write_jsonl(out, rows)
    return len(rows)


class TintLayout(pe.ListedLayout):
    """Images beside a metadata.jsonl that lists them."""

    def __init__(self, prompts, root, images_per_prompt, limit=None):
        read = pe.read_prompts(prompts, parse)
        self.ids = [one.data_id for one in read]
        self.texts = [one.prompt for one in read]
        self.chosen = pe.first_places(read, tag_of, limit)
        super().__init__(root, images_per_prompt, [asdict(one) for one in read])


class TintScorer:
    """An image is right where enough of its pixels have the colour."""

    judge_model, template_digest = "a count of pixels", None

    def __init__(self, options):
        pass  # pe.ScoringOptions: backend, mode, seed, ...

    def score(self, folder):
        entries, limit = self.listed(folder)
        items, raw = pe.judge_all("tint", folder.root, entries, self.judged)
        return self.scored(entries, items, raw, limit=limit)

    def listed(self, folder):
        """All images to look at, and what the limit says of them."""
        prompts = pe.read_prompts(folder.prompts, parse) if folder.prompts else None
        only, limit = pe.first_prompts(prompts, tag_of, folder.limit)
        shown = {"shown": tag_of, "only": only}
        return pe.list_images(folder.root, parse, prompts, folder.images_per_prompt, **shown), limit

    def scored(self, entries, items, raw, **facts):
        """The summary: the share of right images in each group, and of all."""
        groups = {name: [one.outcome for one in items if one.group == name and not one.failed] for name in GROUPS}
        summary = {name: fmean(outcomes) for name, outcomes in groups.items() if outcomes}
        summary["overall"] = fmean(outcome for outcomes in groups.values() for outcome in outcomes)
        digest = pe.prompts_digest(list(dict.fromkeys(entry.prompt for entry in entries)))
        return pe.Scored(items, raw, digest, summary, **facts)

    def judged(self, entry):
        """An image's score item, and what its line in N.raw.jsonl tells."""
        prompt = entry.prompt
        key = {"prompt_id": prompt.data_id, "image_index": entry.image_index, "group": prompt.group}
        try:
            share = colour_share(pe.load_image(entry.path, fix="delete it and generate it again"), prompt.rgb)
        except pe.DataError as error:  # an image without a verdict has failed; it is never counted as wrong
            return pe.ScoreItem(**key, outcome=None, failed=True), {**key, "failed": True, "reason": str(error)}
        item = pe.ScoreItem(**key, outcome=float(share >= ENOUGH), failed=False)
        return item, {**key, "failed": False, "share": share}


def colour_share(image, rgb):
    """Share of the image's pixels near to a colour."""
    import numpy as np

    far = np.linalg.norm(np.asarray(image, float) - np.asarray(rgb, float), axis=-1)
    return float((far <= NEAR).mean())


def table(files):
    """What the table has of its own; `files` are the score files that go into it."""
    from promptecho.tables.kind import DELTA, FAILURES, IMAGES, MODEL, OVERALL, TableKind, percent_columns

    return TableKind(
        title="Tint",
        groups=GROUPS,
        columns=[MODEL, *percent_columns(GROUPS), OVERALL, DELTA, IMAGES, FAILURES],
        rules="Percent of images that show the colour of their prompt, by {judge_model}. Overall is over all images.",
    )


BENCHMARK = pe.Benchmark(
    name="tint", title="Tint", summary="whether an image shows the colour that its prompt names",
    layout="tint:TintLayout", scorer="tint:TintScorer", shapes="tint:write_shapes_prompts", table="tint:table",
    backends=(pe.Backend(name="pixels", summary="a count of pixels"),), archives=True,
    curves=(pe.Curve(title="images in the right colour (%)"),),
)  # fmt: skip
