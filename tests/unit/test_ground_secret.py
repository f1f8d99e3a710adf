"""A secret does not show itself."""

import copy
import pickle
import traceback

import pytest

from facade.secret import Secret

VALUE = "hunter2-s3cret"


def test_no_way_of_printing_shows_it() -> None:
    secret = Secret(VALUE)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>20}",
        f"{[secret]!r}",
        "{}".format(secret),  # noqa: UP032 - another way of printing
    ]
    assert all(VALUE not in text for text in shown)
    assert secret.reveal() == VALUE


def test_a_traceback_does_not_show_it() -> None:
    try:
        raise ValueError(Secret(VALUE))
    except ValueError as error:
        assert VALUE not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled_nor_copied_by_pickling(protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(VALUE), protocol)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(Secret(VALUE))


def test_it_has_no_dictionary_to_look_into() -> None:
    with pytest.raises(TypeError):
        vars(Secret(VALUE))


def test_equality_is_by_value_and_with_secrets_only() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret("ü") == Secret("ü")
    assert Secret(VALUE) != Secret("other")
    assert Secret(VALUE) != VALUE
    assert len({Secret(VALUE), Secret(VALUE)}) == 1


def test_truth_is_whether_there_is_any() -> None:
    assert Secret(VALUE)
    assert not Secret("")
