"""Ctrl-C before the command has begun."""

import pytest

from facade.cli.entry import run


def _interrupt() -> int:
    raise KeyboardInterrupt


def _interrupt_in_a_class_body() -> int:
    class Named:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    class Loaded:
        value = Named()

    raise AssertionError(Loaded)


@pytest.mark.parametrize("command", [_interrupt, _interrupt_in_a_class_body])
def test_an_interrupt_while_loading_is_one_line(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(command)
    assert run(command) == 130
    assert capsys.readouterr().err == "facade: interrupted.\n"


def test_another_failure_is_not_taken_for_one() -> None:
    def broken() -> int:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(broken)


def test_otherwise_the_exit_code_is_the_commands() -> None:
    assert run(lambda: 2) == 2
