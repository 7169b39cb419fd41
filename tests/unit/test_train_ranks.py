"""What one of several ranks says when it fails: everything lands in one log."""

from __future__ import annotations

import pytest

from promptecho.errors import DataError, PromptEchoError, RewardError
from promptecho.train.ranks import named


def test_an_error_names_its_rank_and_stays_what_it_was():
    with pytest.raises(DataError, match=r"^rank 2 of 4 \(.+\): captions.h5: not there$"), named(2, 4):
        raise DataError("captions.h5: not there")
    with pytest.raises(RewardError) as caught, named(2, 4):
        raise RewardError("not finite", index=3)
    assert caught.value.index == 3


def test_an_error_of_another_rank_or_of_a_single_process_stays_as_it_is():
    with pytest.raises(PromptEchoError, match=r"^rank 1: not finite$"), named(2, 4):
        raise PromptEchoError("rank 1: not finite")
    with pytest.raises(PromptEchoError, match=r"^not finite$"), named(0, 1):
        raise PromptEchoError("not finite")


def test_a_lost_connection_is_told_as_a_lost_rank():
    with pytest.raises(PromptEchoError, match=r"^rank 0 of 2 \(.+\): another rank is gone"), named(0, 2):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.7]:31337")


def test_a_bug_keeps_its_traceback_and_gets_its_rank():
    with pytest.raises(KeyError) as caught, named(1, 2):
        raise KeyError("x")
    assert caught.value.__notes__[0].startswith("promptecho: rank 1 of 2 (")
