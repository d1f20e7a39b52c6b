"""What a detector's card says: the numbers of its boards, and no more than their intervals allow."""

from __future__ import annotations

from made_up import moved

from bench.analysis.overview import overviews
from bench.report.cards import cards


def test_a_card_says_what_the_board_says_and_who_is_not_ranked() -> None:
    cells = [moved(name, category, seed=i) for i, (name, category) in enumerate(
        (n, c) for n in "ab" for c in ("one", "two"))]  # fmt: skip
    cells.append(moved("c", "one"))
    (board,) = overviews(cells)
    found = cards([board])
    lines = {line.detector: line for line in board.lines}
    assert set(found) == set(lines) == {"a", "b", "c"}
    for name in "ab":
        (card,) = found[name]
        assert card.board == board.title
        for title in ("clean AUROC", "robust AUROC linf 2/255"):
            assert lines[name].values[title].whole in card.text
        assert f"number {lines[name].rank} of 2" in card.text
    assert "It has no rank: 1 of 2 categories" in found["c"][0].text and "(1 of 2 categories)" in found["c"][0].text


def test_a_side_is_called_easier_only_where_the_intervals_are_apart() -> None:
    for cells in ([moved("a", seed=0, gap=gap), moved("b", seed=1, gap=gap)] for gap in (0.5, 1, 3)):
        (board,) = overviews(cells)
        for line in board.lines:
            normal, anomalous = (line.values[side].estimate for side in ("normal only", "anomalous only"))
            assert normal is not None and anomalous is not None
            text = cards([board])[line.detector][0].text
            assert ("False alarms are easier" in text) == (normal.high < anomalous.low)
            assert ("Misses are easier" in text) == (anomalous.high < normal.low)
