"""The benchmark `tint-asked`: a judge looks at the images of `tint` and says whether they show the colour.

It lies beside tint.py and takes everything else from there; docs/extending.md explains every part.
"""

import hashlib

from tint import TintScorer

from promptecho import benchmarks as pe

QUESTION = 'Does this image show something of the colour that is named in "{prompt}"? Answer with yes or no.'


class AskedScorer(TintScorer):
    """An image is right where the judge says yes."""

    template_digest = hashlib.sha256(QUESTION.encode()).hexdigest()  # what the judge was asked, for the record

    def __init__(self, options):
        self.judge = pe.JudgeBackend(options)
        self.judge_model = self.judge.name

    def question(self, entry):
        return pe.Question(
            id=f"prompt {entry.prompt.data_id}, image {entry.image_index}", images=(entry.path,),
            text=QUESTION.format(prompt=entry.prompt.prompt), parse=pe.read_yes_no, template=self.template_digest,
        )  # fmt: skip

    def score(self, folder):
        entries, limit = self.listed(folder)
        answers = self.judge.ask([self.question(entry) for entry in entries])
        asked = list(zip(entries, answers, strict=True))
        items, raw = pe.judge_all("tint-asked", folder.root, asked, self.answered)
        return self.scored(entries, items, raw, limit=limit, judge=self.judge.facts)

    def answered(self, asked):
        """An image's score item, and what its line in N.raw.jsonl tells."""
        entry, answer = asked
        key = {"prompt_id": entry.prompt.data_id, "image_index": entry.image_index, "group": entry.prompt.group}
        if answer.failure is not None:  # no answer: the image has failed; it is never counted as wrong
            record = {**key, "failed": True, "reason": answer.failure, **answer.record()}
            return pe.ScoreItem(**key, outcome=None, failed=True), record
        item = pe.ScoreItem(**key, outcome=float(answer.value == "yes"), failed=False)
        return item, {**key, "failed": False, **answer.record()}

    def estimate(self, folder):
        """For `promptecho judge --estimate`."""
        return self.judge.estimate([self.question(entry) for entry in self.listed(folder)[0]])


BENCHMARK = pe.Benchmark(
    name="tint-asked", title="Tint, asked", summary="whether a judge sees the colour that the prompt names",
    layout="tint:TintLayout", scorer="tint_asked:AskedScorer", shapes="tint:write_shapes_prompts", table="tint:table",
    backends=(pe.JUDGE,),
    curves=(pe.Curve(title="images in the right colour (%)"), pe.Curve(key="warm", title="of warm colours (%)")),
)  # fmt: skip
