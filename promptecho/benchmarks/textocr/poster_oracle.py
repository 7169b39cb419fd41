"""The gallery's posters, read by its own oracle, which knows in which role a text stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.textocr.rules import TextComparison, normalize

if TYPE_CHECKING:
    from PIL import Image


class PosterReader:
    """Compares an image with a prompt of the gallery. Each text counts in its role: the right word in another place is
    as wrong as one that is missing and one that is added."""

    name = "the gallery's oracle"

    def compare(self, prompt: str, image: Image.Image) -> tuple[TextComparison, dict[str, Any], list[tuple[str, bool]]]:
        """The comparison over all texts, what was read, and for each text asked for its role and whether it is right.

        Raises:
            DataError: the prompt asks for no poster of the gallery.
        """
        from promptecho.gallery.posters import parse_prompt
        from promptecho.gallery.shown_text import shown_texts
        from promptecho.gallery.text_oracle import read_poster

        asked, read = parse_prompt(prompt), read_poster(image)
        pairs = shown_texts(asked.texts, read.poster.texts)
        characters = sum(len(normalize(one.asked)) for one in pairs)
        record = {
            "lines": [{"text": word, "role": role} for role, word in read.poster.texts],
            "ground": read.poster.ground,
            "fit": round(read.score, 4),
        }
        roles = [(one.role, one.edits == 0) for one in pairs if one.asked]
        return TextComparison(sum(one.edits for one in pairs), characters), record, roles
