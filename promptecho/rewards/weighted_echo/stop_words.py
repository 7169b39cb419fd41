"""Words that say nothing of what an image shows."""

from __future__ import annotations

from collections.abc import Collection

# A change makes other rewards: raise the version of weighted_echo's descriptor with it.
STOP_WORDS = frozenset(
    {
        "a", "an", "the", "of", "to", "in", "on", "at", "by", "for", "from", "with", "and", "or", "nor", "but", "as",
        "is", "are", "was", "were", "be", "been", "being", "it", "its", "this", "that", "these", "those", "there",
        "here", "which", "who", "whose", "what", "where", "while", "has", "have", "had", "do", "does", "did", "their",
        "his", "her", "our", "your", "my", "he", "she", "they", "we", "you", "i", "image", "picture", "photo", "shows",
        "show", "showing", "seen",
    }
)  # fmt: skip


def is_stop_word(word: str, stop_words: Collection[str] = STOP_WORDS) -> bool:
    """Whether it is one that says nothing of what an image shows, or no more than a sign."""
    return word.lower() in stop_words or not any(character.isalnum() for character in word)
