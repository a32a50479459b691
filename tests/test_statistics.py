import numpy as np
import pytest
from scipy import stats

from quads_mcu.report.statistics import accuracy, confusion, whole_command, wilson_interval
from quads_mcu.slots import NO_ANSWER, Slot


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (7, 10), (349, 354), (500, 500)])
def test_wilson_interval_equals_scipy(correct: int, total: int) -> None:
    expected = stats.binomtest(correct, total).proportion_ci(method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high))


def test_no_samples_know_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_confusion_and_macro_f1_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1, 3])
    predictions = np.array([0, 1, 1, 1, 0, 3])
    assert confusion(labels, predictions, 4).tolist() == [
        [1, 1, 0, 0],
        [1, 2, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]
    # F1: class 0 precision 1/2 recall 1/2; class 1 2/3 and 2/3; class 2 absent; class 3 1.
    found = accuracy(labels, predictions, 4)
    assert (found.correct, found.total) == (4, 6)
    assert found.macro_f1 == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_a_label_that_no_class_stands_for_is_a_wrong_answer() -> None:
    labels, predictions = np.array([0, 0, 1, NO_ANSWER]), np.array([0, 1, 1, 1])
    assert confusion(labels, predictions, 2).tolist() == [[1, 1], [0, 1]]
    # F1: class 0 precision 1 recall 1/2; class 1 precision 1/3 recall 1.
    found = accuracy(labels, predictions, 2)
    assert (found.correct, found.total) == (2, 4)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    slots = (Slot("what", ("a", "b")), Slot("where", ("c", "d")))
    both = np.stack([labels, [0, 0, 0, 0]], axis=1), np.stack([predictions, [0, 0, 0, 0]], axis=1)
    assert (whole_command(*both, slots).correct, whole_command(*both, slots).total) == (2, 4)
