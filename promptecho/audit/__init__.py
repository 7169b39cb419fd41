"""`promptecho reward-audit`: which VLM and which query to trust as a reward, before GPU hours are spent.

`run.py` first. `sources.py` reads captions, images and verdicts; pairs of a true text or image and one with a fact
changed come from `drawn_pairs.py` (exactly, by grammar and oracle), `edits.py` (rules) or `judge_edits.py`; `rated.py`
asks the rewards and keeps what they said; `measures.py`, `words.py` and `lengths.py` make numbers of it; `advice.py`
recommends by stated rules; `page.py` writes.
"""
