"""`facade config reference`: every key as a TOML file to start from. Pure."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from facade.config.settings import Settings


def reference() -> str:
    """Every key with its default, unit and meaning, as a TOML file to start from."""
    lines: list[str] = ["# Facade configuration: every key, with its default."]
    lines += ["# As environment: FACADE_SECTION__KEY=value (lists as JSON).", ""]
    for name, field in Settings.model_fields.items():
        lines += _section(name, section_of(field.annotation))
    return "\n".join(lines).rstrip() + "\n"


def section_of(annotation: Any) -> Any:
    """The section class behind an annotation, or the annotation itself."""
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    return annotation


def _section(name: str, model: type[BaseModel], *, table: bool = False) -> Iterator[str]:
    yield f"[[{name}]]" if table else f"[{name}]"
    yield f"# {(model.__doc__ or '').strip()}"
    later: list[tuple[str, type[BaseModel], bool]] = []
    for key, field in model.model_fields.items():
        inner = section_of(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            later.append((f"{name}.{key}", inner, get_origin(field.annotation) is tuple))
            continue
        default = "" if field.is_required() else _toml(field.default)
        yield f"# {key} = {default or '…'}    # {field.description}"
    yield ""
    for inner_name, inner_model, is_table in later:
        yield from _section(inner_name, inner_model, table=is_table)


def _toml(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case int() | float():
            return str(value)
        case _:
            return f'"{value}"'
