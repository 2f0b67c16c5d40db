"""The spec language: config text that is command-line value, sweep axis, figure label and hash input at once.

    layer_norm+redo(tau=0.1)+l2(1e-5)

Grammar: `expr = 'none' | term ('+' term)*`, `term = name ['(' [arg (',' arg)*] ')']`, `arg = [name '='] value`,
`value = number | true | false | none | word | 'quoted text'`. There is no evaluation of any kind. Errors give
the position, what is allowed there and the nearest match. Printing is canonical: only fields that differ
from their default, so equal configs have equal text.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple, TypeVar

from plasticity.config import Config
from plasticity.errors import UserError, unknown
from plasticity.registry import Family

C = TypeVar("C", bound=Config)

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
          |(?P<word>[A-Za-z_~/.][\w./~:\-]*)
          |(?P<quoted>'[^']*'|"[^"]*")
          |(?P<mark>[()+,=]))""",
    re.VERBOSE,
)
_CONSTANTS = {"true": True, "false": False, "none": None}


class Term(NamedTuple):
    """One parsed component: `name(args, key=value)` with the position of its name in the text."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    position: int


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, i = text, [], 0
        while text[i:].strip():
            # A sign is part of a number only where a value may begin; elsewhere '+' joins terms.
            match = _TOKEN.match(text, i)
            if match and match.lastgroup == "number" and self.tokens and self.tokens[-1][1] in (")",):
                match = re.compile(r"\s*(?P<mark>[()+,=])").match(text, i)
            if match is None:
                start = i + len(text[i:]) - len(text[i:].lstrip())
                raise self.error(start, f"unexpected character {text[start]!r}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind), match.start(kind)))
            i = match.end()
        self.tokens.append(("end", "", len(text)))
        self.i = 0

    def error(self, position: int, message: str) -> UserError:
        return UserError(f"cannot read spec: {message} at position {position}\n  {self.text}\n  {' ' * position}^")

    def peek(self) -> str:
        kind, value, _ = self.tokens[self.i]
        return value if kind == "mark" else kind

    def take(self, *kinds: str) -> tuple[str, int]:
        kind, value, position = self.tokens[self.i]
        if (value if kind == "mark" else kind) not in kinds:
            found = "the end of the text" if kind == "end" else repr(value)
            raise self.error(position, f"expected {' or '.join(_say(k) for k in kinds)}, found {found}")
        self.i += 1
        return value, position

    def terms(self) -> list[Term]:
        found = [self.term()]
        while self.peek() == "+":
            self.take("+")
            found.append(self.term())
        self.take("+", "end")
        return found

    def term(self) -> Term:
        name, position = self.take("word")
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if self.peek() == "(":
            self.take("(")
            while self.peek() != ")":
                self.argument(args, kwargs)
                if self.peek() != ")":
                    self.take(",", ")")
            self.take(")")
        return Term(name, tuple(args), kwargs, position)

    def argument(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        value, position = self.value()
        if self.peek() == "=":
            self.take("=")
            if not isinstance(value, str):
                raise self.error(position, "a field name must stand before '='")
            if value in kwargs:
                raise self.error(position, f"field {value!r} is given twice")
            kwargs[value] = self.value()[0]
        elif kwargs:
            raise self.error(position, "a value without a name must stand before the named ones")
        else:
            args.append(value)

    def value(self) -> tuple[Any, int]:
        kind = self.peek()
        text, position = self.take("number", "word", "quoted")
        if kind == "number":
            return (int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)), position
        if kind == "quoted":
            return text[1:-1], position
        return _CONSTANTS.get(text, text), position


def _say(kind: str) -> str:
    return {"word": "a name", "number": "a number", "quoted": "quoted text", "end": "the end"}.get(kind, repr(kind))


def parse(text: str) -> list[Term]:
    """The components of a spec, unresolved. `none` and the empty text give an empty list."""
    if text.strip() in ("", "none"):
        return []
    return _Reader(text).terms()


def build(text: str, family: Family[C]) -> tuple[C, ...]:
    """Resolve a spec of any number of components against a family, in the order written."""
    return tuple(_construct(term, family, text) for term in parse(text))


def build_one(text: str, family: Family[C]) -> C:
    """Resolve a spec that must name exactly one member of a family."""
    found = build(text, family)
    if len(found) != 1:
        raise UserError(f"expected exactly one {family.singular}, got {len(found)} in {text!r}")
    return found[0]


def _construct(term: Term, family: Family[C], text: str) -> C:
    try:
        cls = family.get(term.name)
        return cls(**_arguments(term, cls))
    except UserError as error:
        raise UserError(f"{error}\n  in spec {text!r}, at position {term.position}") from None


def _arguments(term: Term, cls: type) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    positional = [f.name for f in fields.values() if f.metadata.get("positional")]
    if len(term.args) > len(positional):
        hint = f"only {', '.join(positional)} may be given without a name" if positional else "give fields by name"
        raise UserError(
            f"{term.name} got {len(term.args)} unnamed values; {hint} (fields: {', '.join(fields) or 'none'})"
        )
    given = dict(zip(positional, term.args, strict=False))
    for key, value in term.kwargs.items():
        if key not in fields:
            raise unknown(f"field of {term.name}", key, fields)
        if key in given:
            raise UserError(f"{term.name}: field {key!r} is given twice")
        given[key] = value
    return {key: _coerce(term.name, fields[key], value) for key, value in given.items()}


def _coerce(name: str, f: dataclasses.Field, value: Any) -> Any:
    """Bring a parsed value to the field's type, or say why it cannot be."""
    kind = f.metadata["type"]
    if value is None and f.default is None:
        return None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and float(value).is_integer():
        return int(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not kind:
        wanted = {
            float: "a number",
            int: "a whole number",
            bool: "true or false",
            str: "a name or quoted text",
        }[kind]
        raise UserError(f"{name}: {f.name} must be {wanted}, got {value!r}")
    return value


def to_text(item: Config | tuple[Config, ...]) -> str:
    """The canonical spec of a config, or of several joined by `+`; `none` for an empty tuple."""
    if isinstance(item, tuple):
        return "+".join(to_text(member) for member in item) or "none"
    parts, bare = [], True
    for f in dataclasses.fields(item):  # pyrefly: ignore
        value = getattr(item, f.name)
        if value == f.default:
            bare = False
            continue
        bare = bare and bool(f.metadata.get("positional"))
        # A strength given as a whole number is the same config, and so the same text, as the float.
        text = _print(float(value) if f.metadata["type"] is float and isinstance(value, int) else value)
        parts.append(text if bare else f"{f.name}={text}")
    name = item.name  # pyrefly: ignore
    return f"{name}({', '.join(parts)})" if parts else name


def _print(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_~/.][\w./~:\-]*", value) and value not in _CONSTANTS
        if plain:
            return value
        quote = '"' if "'" in value else "'"
        if quote in value:
            raise UserError(f"a value with both kinds of quotes cannot be written in a spec: {value}")
        return f"{quote}{value}{quote}"
    return str(value)


def format_number(value: float) -> str:
    """Shortest text that reads back as the same float: `1e-5` rather than `1e-05`, `2` rather than `2.0`."""
    text = repr(float(value) + 0.0)  # -0.0 equals 0.0, so it has the same text
    text = re.sub(r"e([-+]?)0*(\d)", lambda m: f"e{m[1].replace('+', '')}{m[2]}", text)
    return text.removesuffix(".0")
