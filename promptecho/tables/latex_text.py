"""Any text as LaTeX that compiles, and how wide it becomes."""

from __future__ import annotations

import functools
import re
import unicodedata

_JOINER = "\u2060"
# [ and * after a \\ would be read as its arguments.
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": "$<$", ">": "$>$", "[": "{[}",
    "]": "{]}", "*": "{*}", '"': "''", "`": r"\`{}",
}  # fmt: skip
_KNOWN = {
    "–": "--", "—": "---", "−": "$-$", "‘": "`", "’": "'", "“": "``", "”": "''", "„": "''", "…": r"\dots{}",
    "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "•": r"$\bullet$", "°": r"$^\circ$",
    "→": r"$\rightarrow$", "←": r"$\leftarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "⇒": r"$\Rightarrow$",
    "↔": r"$\leftrightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$",
    "²": "$^2$", "³": "$^3$", "§": r"\S{}", "†": r"\dag{}", "‡": r"\ddag{}", "µ": r"$\mu$", "✓": r"$\surd$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", _JOINER: "{}",
}  # fmt: skip
_GREEK = "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon varphi"
_GREEK += " chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
_KNOWN |= {c: rf"$\{name}$" for c, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _GREEK.split(), strict=True)}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c",
}  # fmt: skip

# Widths of Computer Modern in thousandths of an em, rounded up; Times is narrower.
_WIDTHS = {
    character: width
    for width, characters in {
        280: "il.,:;!'[]|", 310: "fj", 335: "- ", 365: "I", 395: "rst()", 450: "cez", 505: "aog?/*$`0123456789",
        530: "kqvxy", 560: 'bdhnpuSJ"\\', 630: "LZ_", 685: "EFP", 740: "BCRTw", 785: "ADGHKNOQUVXY+=@~^<>{}",
        835: "m&#%", 920: "M",
    }.items()
    for character in characters
}  # fmt: skip
_WIDEST = 1200
_WIDER = {9.0: 1.03, 8.0: 1.065, 7.0: 1.14, 6.0: 1.225}  # smaller sizes are cut wider
_BOLD = 1.17
_LONG = 24  # characters of a word; a longer one may not fit into the rest of a line
_PIECES = re.compile(r"[^-_/:.,=@+]{1,8}[-_/:.,=@+]{0,8}|[-_/:.,=@+]{1,8}")


def escape_latex(text: str) -> str:
    r"""Text that compiles with pdfLaTeX outside of mathematics and looks as it did.

    Accents are commands, so that no encoding has to be declared; two hyphens stay two. Letters that need a font of
    their own (Chinese, emoji) become their numbers, such as (U+4E2D); control characters become a space.
    """
    text = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u200b\ufeff\u2060]+", " ", unicodedata.normalize("NFC", text))
    return "".join(map(_character, re.sub(r"([-,'])(?=\1)", rf"\1{_JOINER}", text)))


def _character(character: str) -> str:
    if character.isascii():
        return _SPECIAL.get(character, character)
    if character in _KNOWN:
        return _KNOWN[character]
    parts = unicodedata.normalize("NFD", character)
    letter, marks = parts[0], parts[1:]
    if letter.isascii() and letter.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{{letter}}}"
    return f"(U+{ord(character):04X})"


def text_width(text: str, points: float, bold: bool = False) -> float:
    """Width in points of a text in a font of 9, 8, 7 or 6 points; rather too large than too small."""
    return sum(map(_width, text)) / 1000 * points * _WIDER[points] * (_BOLD if bold else 1)


@functools.cache
def _width(character: str) -> float:
    if character.isascii():
        return _WIDTHS.get(character, _WIDEST)
    return sum(map(_width, _number(character))) or _WIDEST


def breakable(text: str) -> str:
    r"""Escaped text of a paragraph: long words, such as names of runs and digests, may go on in the next line."""
    escaped = " ".join(
        r"\allowbreak{}".join(map(escape_latex, _PIECES.findall(word))) if len(word) > _LONG else escape_latex(word)
        for word in text.split()
    )
    return re.sub(r"(\(U\+[0-9A-F]{4,6}\))", r"\1\\allowbreak{}", escaped)


def wrapped(text: str, length: int, longest: int) -> list[str]:
    """Lines of up to `length` characters; words longer than that are split behind punctuation, and anywhere after
    `longest` characters."""
    lines = [""]
    for word in text.split():
        if _length(f"{lines[-1]} {word}".strip()) <= length:
            lines[-1] = f"{lines[-1]} {word}".strip()
            continue
        lines += [""] if lines[-1] else []
        for piece in [word] if _length(word) <= length else re.findall(r"[^-_/:+]+[-_/:+]?|[-_/:+]", word):
            lines += [""] if lines[-1] and _length(lines[-1] + piece) > length else []
            for character in piece:
                lines += [""] if lines[-1] and _length(lines[-1] + character) > longest else []
                lines[-1] += character
    return lines


def _length(text: str) -> int:
    """Characters as shown: those without a letter in LaTeX are numbers."""
    return sum(1 if character.isascii() else len(_number(character)) or 1 for character in text)


def _number(character: str) -> str:
    shown = _character(character)
    return shown if shown.startswith("(U+") else ""
