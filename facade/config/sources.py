"""Reading the configuration: one TOML file, overridden by `FACADE_*` environment variables.

Guarantees: `load` gives a frozen, validated `Settings`, or one `Invalid` that lists every problem at
once; unknown keys and unknown `FACADE_*` variables are problems too, so a typing error never
means a silent default. Does not check that files exist or ports are free: `facade doctor` does.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from facade.config.reference import section_of
from facade.config.settings import Settings
from facade.errors import Invalid

ENV_PREFIX = "FACADE_"
ENV_DELIMITER = "__"
DEFAULT_FILE = Path("/etc/facade/facade.toml")
_FOR_THE_CLI = frozenset({"FACADE_CONFIG", "FACADE_STATE", "FACADE_URL", "FACADE_API_KEY"})


def load(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration.

    Arguments:
        file: the TOML file; None = `FACADE_CONFIG`, else /etc/facade/facade.toml if it exists.
        environ: the environment; None = the process's.

    Raises Invalid that names the file and lists every problem, one a line.
    """
    environ = os.environ if environ is None else environ
    if file is None and "FACADE_CONFIG" in environ:
        file = Path(environ["FACADE_CONFIG"])
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    problems = [
        f"{name}: no such setting (see: facade config reference)"
        for name in sorted(environ)
        if name.startswith(ENV_PREFIX) and not _is_known(name)
    ]
    document = _read(file) if file is not None else {}
    try:
        settings = _from_sources(document, environ)
    except ValidationError as error:
        problems += [_sentence(dict(item)) for item in error.errors()]
    except SettingsError as error:
        problems.append(
            f"an environment variable of the section {str(error).split(chr(34))[1]!r} is not "
            'valid: lists are JSON, like ["127.0.0.0/8"]'
        )
    if problems:
        where = f" ({file} and the environment)" if file else " (the environment)"
        raise Invalid(f"The configuration{where} has problems:\n  " + "\n  ".join(problems))
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"The configuration file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The configuration file {file} is not valid TOML: {error}.") from error


def _from_sources(document: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Let pydantic-settings merge the file with exactly this environment, which wins."""

    class _Env(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {
                name.lower(): value
                for name, value in environ.items()
                if name not in _FOR_THE_CLI and _is_known(name)
            }

    class _Loaded(BaseSettings, Settings):
        model_config = SettingsConfigDict(
            frozen=True,
            extra="forbid",
            env_prefix=ENV_PREFIX,
            env_nested_delimiter=ENV_DELIMITER,
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return _Env(settings_cls), InitSettingsSource(settings_cls, dict(document))

    return _Loaded()


def _is_known(name: str) -> bool:
    if name in _FOR_THE_CLI or not name.startswith(ENV_PREFIX):
        return True
    model: Any = Settings
    for part in name.removeprefix(ENV_PREFIX).lower().split(ENV_DELIMITER):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return False
        field = model.model_fields.get(part)
        if field is None:
            return False
        model = section_of(field.annotation)
    return True


def _sentence(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "no such setting (see: facade config reference)"
    if item["type"] in ("too_long", "string_too_long"):
        message = "not built yet; leave it out for now"
    return f"{where}: {message}"
