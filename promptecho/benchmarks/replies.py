"""Replies of judges, read tolerantly: every reply that holds exactly one clear answer is accepted.

One place for all benchmarks. What a model puts around its answer does not matter: thoughts in tags, ``` fences, prose
before or after, CRLF, a number written as text. A reply that could mean two things is not accepted: two objects, a key
twice, yes and no. The official rules are elsewhere (`json_reply`, and in the folders of benchmarks) and are taken with
`parser: official`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from promptecho.judges.errors import RefusedError

M = TypeVar("M", bound=BaseModel)

# Tags and marks in which models think, or box their answer.
_TAGS = "think|thinking|thoughts?|reasoning|reflection|scratchpad|seed:think"
_THOUGHT = re.compile(
    rf"<({_TAGS})>.*?</\1>|\[THINK\].*?\[/THINK\]|◁think▷.*?◁/think▷",
    re.DOTALL | re.IGNORECASE,
)
_THOUGHT_ENDS = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷", re.I)
_THOUGHT_BEGINS = re.compile(rf"<(?:{_TAGS})>|\[THINK\]|◁think▷", re.I)
_FINAL = "<|channel|>final<|message|>"
_MARKS = re.compile(r"<\|[a-z_]+\|>")
_OPENS = re.compile(r"""\{\s*["'\u201c}]""")  # how an object begins, whole or not
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")

_DECLINES = re.compile(
    r"\b(?:ca(?:n't|nnot|n not)|could(?:n't| not)|won't|will not|unable to|not able to|not going to|must decline to|"
    r"decline to|have to decline)\b[^.\n]{0,40}?"
    r"\b(?:assist|help|comply|fulfil+|engage|participate|continue|process|provide|discuss|respond|answer|analy[sz]e|"
    r"evaluate|judge|compare|rate|assess|complete|do (?:that|this)|(?:this|that|your) request)\b",
    re.IGNORECASE,
)
_DECLINES_ELSEWHERE = re.compile(
    r"(?:抱歉|对不起|很遗憾)[^。\n]{0,30}(?:无法|不能)|^\W*我(?:无法|不能)(?:协助|提供|回答|评估)"
)

# "no" before one of these words is an answer ("no, it"); before another it may be "no dog".
_AFTER_NO = "there|it|its|it's|the|this|that|these|those|they|he|she|i|we|because|since|as|not|only|both|in|on|a|an"
_NO_STANDS = rf"(?=\W*$|\s*[^\w\s]|\s*\n|\s+(?:{_AFTER_NO})\b)"
_STANDS = {"yes": r"\b", "no": rf"\b{_NO_STANDS}"}
_LEAD = re.compile(
    r"^\W*(?:(?:so|the|my|final|short)\s+)*(?:answer(?:\s+is)?\W*)?"
    rf"(?:yes{_STANDS['yes']}|no{_STANDS['no']})",
    re.IGNORECASE,
)
_TOLD = re.compile(r"\banswer(?:\s+is)?\s*[:=\-\u2013]?\s*[*_\"'`]*(yes|no)\b" + r"(?=\W*$|\s*[^\w\s]|\s*\n)", re.I)
_JOINTS = r"(?:and|or|but|also|then|maybe|actually|wait|rather)"
_LINE = re.compile(
    r"^[^\w\n]*(?:(?:questions?|answers?|q|a|line)?\s*(?P<number>\d{1,3})\s*[.):\]\-\u2013]+|(?:answer|a)\s*:)?"
    r"[^\w\n]*(?P<word>yes|no)\b",
    re.IGNORECASE,
)


def spoken(text: str) -> str:
    """A reply without what its model only thought, and without the marks of its template.

    A thought that does not end (a reply that was cut) takes all that follows with it.
    """
    if _FINAL in text:
        text = text.rpartition(_FINAL)[2]
    text = _THOUGHT.sub("\n", text)
    ends = list(_THOUGHT_ENDS.finditer(text))  # the opening tag may have been in the template
    text = text[ends[-1].end() :] if ends else text
    if begins := _THOUGHT_BEGINS.search(text):
        text = text[: begins.start()]
    return _MARKS.sub(" ", text).replace("\r\n", "\n").replace("\ufeff", "").replace("\u200b", "").strip()


def declines(text: str) -> bool:
    """Whether prose says that its model will not do what it was asked."""
    plain = text.replace("\u2019", "'")
    return bool(_DECLINES.search(plain) or _DECLINES_ELSEWHERE.search(plain))


def read_object(text: str, model: type[M], optional: tuple[str, ...] = ()) -> M:
    """The one JSON object of a reply as a `model`. `optional`: text fields that decide nothing, "" where absent.

    Raises:
        RefusedError: there is none, and the reply refuses.
        ValueError: there is none, several, a part of one, or it is not what was asked for (one line, names the key).
    """
    value = _whole(text)
    if value is None:
        said = spoken(text)
        found = list(_objects(said))
        if not found and (loose := _loose(said)) is not None:
            found = [loose]
        if not found and declines(said):
            raise RefusedError(_shown(said))
        if len(found) != 1:
            raise ValueError(f"the reply: {len(found) or 'no'} JSON object{'s' if found else ''}, expected one")
        value = found[0]
    [inner] = value.values() if len(value) == 1 else [None]
    if isinstance(inner, dict) and not set(_names(value)) & set(model.model_fields):
        value = inner  # {"answer": {...}}
    return _as_model(value, model, optional)


def read_yes_no(text: str) -> str:
    """`yes` or `no`: what the reply says before anything else, says on a line or in a sentence of its own, or calls its
    answer.

    Raises:
        RefusedError: the reply refuses.
        ValueError: it says neither, or both.
    """
    said = spoken(text)
    bare = _unemphasized(re.sub(r"```\w*", "\n", said))
    if (value := _whole(bare)) is not None and len(value) == 1:
        [answer] = value.values()
        bare = {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else str(answer)
    lead = _LEAD.match(bare)
    if lead:
        word = "no" if lead[0].lower().endswith("no") else "yes"
        rest = bare[lead.end() :]
        words = {word, *_standing(rest)}
        if _taken_back(word, rest) or (word == "no" and declines(bare)):
            words = {"yes", "no"}
    else:
        words = _standing(bare)
    if len(words) != 1:
        if declines(bare):
            raise RefusedError(_shown(bare))
        raise ValueError(f"expected yes or no, not {bare[:80]!r}" if bare else "expected yes or no, not nothing")
    return words.pop()


def read_yes_no_list(text: str, questions: int) -> list[str]:
    """The answers to so many questions, one a line. Lines that begin with yes or no count, as officially; where these
    are not as many as the questions, lines with a number, a bullet or "Answer:" before the word count too (and such as
    "No further comment" do not), or a reply of these words alone.

    Raises:
        RefusedError: the reply refuses.
        ValueError: not as many answers as questions, or a line says both.
    """
    said = _unemphasized(spoken(text))
    lines = [line.strip() for line in said.split("\n")]
    plain = [match for line in lines if (match := re.match(r"(?P<word>yes|no)\b", line, re.IGNORECASE))]
    loose = [match for line in lines if (match := _LINE.match(line)) and _stands(match)]
    numbers = [int(match["number"]) for match in loose if match["number"]]
    found = plain
    if len(plain) != questions and len(loose) == questions and numbers in ([], [*range(1, questions + 1)]):
        found = loose
    words = [match["word"].lower() for match in found]
    if len(words) != questions:
        alone = re.findall(r"\w+", said.lower())
        if len(alone) == questions and set(alone) <= {"yes", "no"} and "/" not in said:
            return alone
        if not words and declines(said):
            raise RefusedError(_shown(said))
        raise ValueError(f"{len(words)} lines begin with yes or no, {questions} questions were asked")
    for word, match in zip(words, found, strict=True):
        if _joined(word, match.string[match.end() :]):
            raise ValueError(f"a line says yes and no: {match.string[:80]!r}")
    return words


def _unemphasized(text: str) -> str:
    return re.sub(r"(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])", " ", text).strip()


def _standing(text: str) -> set[str]:
    """The words that are a sentence or a line of their own, or are called the answer."""
    sentences = {re.sub(r"^\W+|\W+$", "", part).lower() for part in re.split(r"[.!?\n]+", text)}
    return (sentences & {"yes", "no"}) | {match[1].lower() for match in _TOLD.finditer(text)}


def _stands(match: re.Match[str]) -> bool:
    """Whether the word is an answer, not the beginning of a phrase such as "no further comment"."""
    rest = match.string[match.end() :]
    return match["word"].lower() == "yes" or bool(re.match(_NO_STANDS, rest, re.IGNORECASE))


def _other(word: str) -> str:
    return {"yes": "no", "no": "yes"}[word]


def _joined(word: str, rest: str) -> bool:
    """Whether the other word follows at once: "yes and no", "yes/no"."""
    other = _other(word)
    return bool(re.match(rf"\W*(?:{_JOINTS}\W+)*{other}{_STANDS[other]}", rest, re.IGNORECASE))


def _taken_back(word: str, rest: str) -> bool:
    """Whether what follows the answer begins a sentence or a correction with the other word."""
    other = _other(word)
    later = rf"(?:[.!?;\n]|\b{_JOINTS}\b)\W*{other}{_STANDS[other]}"
    return _joined(word, rest) or bool(re.search(later, rest, re.IGNORECASE))


def _shown(text: str) -> str:
    return " ".join(text.split())[:200]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    for key, one in pairs:
        if value[key] != one:
            raise KeyError(key)
    return value


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_pairs)


def _whole(text: str) -> dict[str, Any] | None:
    """The object that the whole text is; None where it is none."""
    try:
        value, end = _DECODER.raw_decode(text.strip())
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: there twice, with two values") from None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and end == len(text.strip()) else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects in a text, outermost ones only; up to the first that is not whole.

    Raises:
        ValueError: a key is there twice with two values, or an object is not whole beside others.
    """
    place, count = 0, 0
    while (match := _OPENS.search(text, place)) is not None:
        try:
            value, place = _DECODER.raw_decode(text, match.start())
        except KeyError as error:
            raise ValueError(f"{error.args[0]}: there twice, with two values") from None
        except (ValueError, RecursionError):
            if count:
                raise ValueError("the reply: an object, and one that is not whole") from None
            return
        count += 1
        yield value


def _loose(text: str) -> dict[str, Any] | None:
    """The one object that is almost JSON: with a comma too many, or written as Python writes it."""
    start, end = text.find("{"), text.rfind("}") + 1
    body = text[start:end] if 0 <= start < end else ""
    try:
        return _whole(_TRAILING_COMMA.sub(r"\1", body)) or _python(body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _python(body: str) -> dict[str, Any] | None:
    tree = ast.parse(body, mode="eval").body
    if not isinstance(tree, ast.Dict) or len({ast.dump(key) for key in tree.keys if key}) != len(tree.keys):
        return None
    return ast.literal_eval(tree)


def _names(value: dict[str, Any]) -> dict[str, Any]:
    """Keys as the models spell them: lower case, underscores.

    Raises:
        ValueError: two keys come out the same, with two values.
    """
    found: dict[str, Any] = {}
    for key, one in value.items():
        name = re.sub(r"[\s\-]+", "_", str(key).strip()).lower()
        if name in found and found[name] != one:
            raise ValueError(f"{name}: there twice, with two values")
        found[name] = one
    return found


def _as_model(value: dict[str, Any], model: type[M], optional: tuple[str, ...]) -> M:
    values = _names(value)
    for name, field in model.model_fields.items():
        if name in optional and values.get(name) is None:
            values[name] = ""
        elif name in values:
            values[name] = _plain(values[name], field.annotation)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise ValueError(f"{key}: {first['msg']}") from None


def _plain(value: Any, wanted: Any) -> Any:
    """`value` as the field requires it, if only one conversion is possible: a choice in other spelling, a number as
    text."""
    if get_origin(wanted) is Literal and isinstance(value, str):
        told = re.sub(r"[\W_]+", "_", value.strip().lower()).strip("_")
        choices = [str(choice) for choice in get_args(wanted)]
        alike = [choice for choice in choices if told in (choice.lower(), choice.lower().removeprefix("image_"))]
        return alike[0] if len(alike) == 1 else value
    if wanted in (int, float) and not isinstance(value, bool):
        text = str(value).strip() if isinstance(value, str | int | float) else ""
        if re.fullmatch(r"[+-]?\d+(?:\.\d+)?", text):
            number = float(text)
            return int(number) if wanted is int and number.is_integer() else number
    return value
