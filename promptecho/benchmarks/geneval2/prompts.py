"""GenEval 2's prompts: one {prompt, atom_count, vqa_list, skills} a line, as the authors publish them.

A prompt has no id of its own there, so its place in the file names it. Beside images the same line has a `data_id`.
`atom_count` (atomicity) is what the prompt says: articles and "and" do not count, while the question how many there are
of a thing with "a" is asked, so that there may be more questions than atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from promptecho.benchmarks.geneval2.rules import SKILLS, group_of, is_count, spellings
from promptecho.benchmarks.listing import is_writable, listed_prompt, read_numbered, read_text
from promptecho.errors import DataError


@dataclass(frozen=True)
class PromptAtom:
    """One thing that a prompt says: the `question` about it, the right `answer`, and which of SKILLS it needs."""

    question: str
    answer: str
    skill: str


@dataclass(frozen=True)
class Geneval2Prompt:
    """One prompt; `atom_count` is its atomicity."""

    data_id: str
    prompt: str
    atom_count: int
    atoms: tuple[PromptAtom, ...]

    @property
    def group(self) -> str:
        """Prompts of one atomicity, as scores name them."""
        return group_of(self.atom_count)

    def row(self) -> dict[str, Any]:
        """The prompt as a line beside images."""
        return {
            "data_id": self.data_id,
            "prompt": self.prompt,
            "atom_count": self.atom_count,
            "vqa_list": [[atom.question, atom.answer] for atom in self.atoms],
            "skills": [atom.skill for atom in self.atoms],
        }


def tag_of(prompt: Geneval2Prompt) -> str:
    """By what a limit is stratified."""
    return prompt.group


def parse_prompt(row: dict[str, Any], where: str, data_id: str) -> Geneval2Prompt:
    """A line as a prompt; `where` names it in errors.

    Raises:
        DataError: the line is not in GenEval 2's format.
    """
    count, asked, skills = (row.get(key) for key in ("atom_count", "vqa_list", "skills"))
    if type(count) is not int or count < 1:
        raise DataError(f"{where}: atom_count {count!r}: expected a whole number from 1")
    if not isinstance(asked, list) or not asked:
        raise DataError(f"{where}: vqa_list is missing or empty; expected pairs [question, answer]")
    if not isinstance(skills, list) or len(skills) != len(asked):
        many = len(skills) if isinstance(skills, list) else "no"
        raise DataError(f"{where}: {many} skills for {len(asked)} questions of vqa_list; give one for each")
    atoms = tuple(
        _atom(pair, skill, f"{where}: question {n}")
        for n, (pair, skill) in enumerate(zip(asked, skills, strict=True), 1)
    )
    return Geneval2Prompt(data_id, read_text(row, "prompt", where), count, atoms)


def _atom(pair: Any, skill: Any, where: str) -> PromptAtom:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise DataError(f"{where}: {pair!r}: expected a pair [question, answer]")
    question, answer = pair
    if not question.strip() or not is_writable(question):
        raise DataError(f"{where}: {question!r} is no question; fill it in")
    if skill not in SKILLS:
        raise DataError(f"{where}: skill {skill!r}: expected one of {', '.join(SKILLS)}")
    if is_count(question):
        try:
            spellings(question, answer)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    elif answer.strip().lower() != "yes":
        raise DataError(f"{where}: answer {answer!r} to {question!r}: the rules take yes for right; ask the other way")
    return PromptAtom(question, answer, skill)


def read_prompts(path: str | Path) -> list[Geneval2Prompt]:
    """Read a prompt set; a prompt's id is its place in the file, from 00000.

    Raises:
        DataError: the file is missing, empty or a line is malformed (names file:line).
    """
    return read_numbered(path, parse_prompt)


parse_listed = partial(listed_prompt, parse_prompt)  # a line beside images and where it stands, as its prompt
