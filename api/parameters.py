"""Parameters of the query, read into the types that also describe them."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from api.current_request import get_environ, get_request
from shared.errors import ServiceError

Parameters = TypeVar("Parameters", bound=msgspec.Struct)

_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")


def read_query(kind: type[Parameters]) -> Parameters:
    """Read the parameters of the query.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: which, and what was expected.
    """
    try:
        return msgspec.convert(read_arguments(), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ServiceError("invalid_parameter", explain_fault(error, kind)) from None


def read_arguments() -> dict[str, str]:
    """Return the parameters of the query as they stand.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: one stands there twice, and which was meant nobody knows.
    """
    if not get_environ().get("QUERY_STRING"):
        return {}
    for name, values in get_request().args.lists():
        if len(values) > 1:
            raise ServiceError("invalid_parameter", f"{name[:100]}: expected once, given {len(values)} times.")
    return dict(get_request().args.items())


def explain_fault(error: msgspec.ValidationError, kind: Any) -> str:
    """Say which member of a struct is wrong, and what was expected."""
    reason, place = str(error), ""
    if found := _PLACE.search(reason):
        reason, place = reason[: found.start()], found[1]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if place in fields:
        reason = f"expected {_describe_type(msgspec.inspect.type_info(fields[place].type))}"
    return f"{place}: {reason}." if place else f"{reason}."


def _describe_type(info: msgspec.inspect.Type) -> str:
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _describe_type(inner)
        case msgspec.inspect.UnionType(types=types):
            named = [one for one in types if not isinstance(one, msgspec.inspect.NoneType | msgspec.inspect.CustomType)]
            return " or ".join(map(_describe_type, named))
        case msgspec.inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case msgspec.inspect.EnumType(cls=cls):
            return f"one of {', '.join(str(member.value) for member in cls)}"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType(ge=least, le=most):
            return "a whole number" + (f" from {least} to {most}" if least is not None and most is not None else "")
        case msgspec.inspect.FloatType(gt=above, ge=least, le=most):
            lower = f" from {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
            return "a number" + lower + (f" to {most:g}" if most is not None else "")
        case msgspec.inspect.StrType():
            return "a text"
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            return "a list"
        case _:
            return "an object"
