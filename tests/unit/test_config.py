"""Configuration: defaults, file, environment, and every problem told at once."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from facade.config import Settings, parse_listen
from facade.config.reference import reference
from facade.config.sources import load
from facade.errors import Invalid


def _problems(tmp_path: Path, toml: str, environ: dict[str, str] | None = None) -> str:
    file = tmp_path / "facade.toml"
    file.write_text(toml)
    with pytest.raises(Invalid) as caught:
        load(file, environ or {})
    return caught.value.message


def test_defaults_need_no_file() -> None:
    settings = load(None, {})
    assert settings.device.listen == "[::]:8443"
    assert settings.operator.listen == "127.0.0.1:8080"
    assert settings.pull.holdback_bytes == 65536


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "facade.toml"
    file.write_text('[device]\nlisten = "127.0.0.1:1"\ntrust_domain = "corp.example"\n')
    settings = load(file, {"FACADE_DEVICE__LISTEN": "127.0.0.1:2"})
    assert settings.device.listen == "127.0.0.1:2"
    assert settings.device.trust_domain == "corp.example"


def test_lists_come_as_json() -> None:
    settings = load(None, {"FACADE_UPSTREAM__ALLOW_CIDRS": '["127.0.0.0/8"]'})
    assert settings.upstream.allow_cidrs == ("127.0.0.0/8",)


def test_the_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('[log]\nlevel = "debug"\n')
    assert load(None, {"FACADE_CONFIG": str(file)}).log.level == "debug"


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.device.listen = "127.0.0.1:1"  # type: ignore[misc]


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    message = _problems(
        tmp_path,
        '[device]\nlisten = "nonsense"\ntypo = 1\n[store]\nurl = "s3://bucket"\n',
        {"FACADE_DEVCE__LISTEN": "x"},
    )
    assert "FACADE_DEVCE__LISTEN: no such setting" in message
    assert "device.listen: write HOST:PORT" in message
    assert "device.typo: no such setting" in message
    assert "store.url: s3:// stores are not built yet" in message


def test_a_variable_that_is_no_json_is_named_by_section(tmp_path: Path) -> None:
    message = _problems(tmp_path, "", {"FACADE_UPSTREAM__ALLOW_CIDRS": "127.0.0.0/8"})
    assert "'upstream'" in message
    assert "lists are JSON" in message


def test_the_commands_own_variables_are_no_settings() -> None:
    load(None, {"FACADE_STATE": "/x", "FACADE_URL": "http://x", "FACADE_API_KEY": "k"})


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "operator.example:8080"])
def test_plain_http_on_a_public_address_is_refused(tmp_path: Path, listen: str) -> None:
    assert "behind_proxy" in _problems(tmp_path, f'[operator]\nlisten = "{listen}"\n')


def test_behind_a_proxy_plain_http_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "facade.toml"
    file.write_text('[operator]\nlisten = "0.0.0.0:8080"\nbehind_proxy = true\n')
    assert load(file, {}).operator.behind_proxy


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[operator]\ncert = '/x'\n", "both cert and key"),
        ("[store]\nlow_watermark = 0.99\n", "low_watermark"),
        ("[store]\nurl = 'cache'\n", "file:///absolute/path"),
        ("[database]\nurl = 'postgresql+asyncpg://h/d'\n", "not built yet"),
        ("[database]\nurl = 'mysql://h/d'\n", "sqlite+aiosqlite"),
        ("[database]\nurl = 'sqlite+aiosqlite:///:memory:'\n", "must be a file"),
        ("[database]\nurl = 'sqlite+aiosqlite:///%3Amemory%3A'\n", "must be a file"),
        ("[database]\nurl = 'sqlite+aiosqlite:///x.db?mode=memory'\n", "must be a file"),
        ("[database]\nurl = 'sqlite+aiosqlite:///?timeout=9'\n", "must be a file"),
        (
            "[database]\nurl = 'sqlite+aiosqlite:///file:x?mode=memory&uri=true'\n",
            "write sqlite+aiosqlite:///path/to/facade.db",
        ),
        ("[redis]\nurl = 'http://h'\n", "redis.url: write redis://"),
        ("[device]\ntrust_domain = 'Has Spaces'\n", "trust domain"),
        ("[device]\ndefault_registry = 'https://u:p@h'\n", "credentials"),
        ("[upstream]\nallow_cidrs = ['300.0.0.0/8']\n", "allow_cidrs"),
        ("not toml", "not valid TOML"),
    ],
)
def test_bad_values_are_told(tmp_path: Path, toml: str, words: str) -> None:
    message = _problems(tmp_path, toml)
    assert words in message
    assert ":p@" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nowhere\.toml cannot be read"):
        load(tmp_path / "nowhere.toml", {})


def test_the_reference_names_every_key_and_is_toml_when_uncommented() -> None:
    text = reference()
    tomllib.loads(text)
    for section, field in Settings.model_fields.items():
        assert f"[{section}]" in text
        assert field.annotation is not None
        for key in field.annotation.model_fields:
            assert key in text


def test_the_reference_says_of_each_rate_what_several_workers_allow() -> None:
    rates = [
        line for line in reference().splitlines() if re.match(r"# \w+_per_(second|day) = …", line)
    ]
    assert len(rates) == 3
    assert all("N workers allow up to N times as much" in line for line in rates)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::]:8443", ("::", 8443)), (":0", ("", 0))],
)
def test_parse_listen(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "8080", "::1:80", "h:99999", "h:x", "[::1]"])
def test_parse_listen_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_listen(text)
