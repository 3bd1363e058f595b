"""Tenants: the businesses whose calls are answered (PC-5). Values, and the checks that make them.

``make_tenant`` is for what people write: it normalises, and names everything that is wrong at once. What was
checked before (a row of the database) is made by ``Tenant(...)`` itself.
"""

import difflib
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import attrs

from agent.core.errors import TenantError
from agent.core.tenant_fields import (
    read_language,
    read_lines,
    read_lookup,
    read_name,
    read_numbers,
    read_origins,
    read_region,
    read_secret,
    read_slug,
    read_text,
    read_time_zone,
    read_tools,
    read_voice,
    read_webhook_url,
    read_yes_or_no,
    slug_of,
)

DEFAULT_TENANT_ID: Final = "default"
"""The tenant of calls to numbers that belong to nobody; it always exists."""

_SECRET_BYTES: Final = 32


@attrs.frozen
class Tenant:
    """A business: the numbers it is called on, how the agent speaks for it, and who hears of its calls.

    Numbers are E.164. ``greeting``, ``instructions`` and ``voice`` are the process's settings where None, and
    the caller begins where the greeting is empty. ``tools`` None: all built in ones (``transfer_call`` only with
    ``transfer_numbers``). ``lookup`` open: whoever shows a known number is told all that is known of it.
    ``origins``: sites whose pages may phone this tenant.
    """

    id: str
    name: str
    numbers: tuple[str, ...] = ()
    language: str = ""
    time_zone: str = "UTC"
    greeting: str | None = None
    instructions: str | None = None
    voice: str | None = None
    tools: tuple[str, ...] | None = None
    transfer_numbers: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    webhook_url: str | None = None
    webhook_secret: str | None = attrs.field(default=None, repr=False)
    delete_recordings: bool = False
    lookup: Literal["guarded", "open"] = "guarded"
    origins: tuple[str, ...] = ()


FIELDS: Final = tuple(field.name for field in attrs.fields(Tenant))
_CHECKS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "default_region": lambda value, _: read_region(value),
    "id": lambda value, _: read_slug(value),
    "name": lambda value, _: read_name(value),
    "numbers": read_numbers,
    "language": lambda value, _: read_language(value),
    "time_zone": lambda value, _: read_time_zone(value),
    "greeting": lambda value, _: read_text(value),
    "instructions": lambda value, _: read_text(value),
    "voice": lambda value, _: read_voice(value),
    "tools": lambda value, _: read_tools(value),
    "transfer_numbers": read_numbers,
    "services": lambda value, _: read_lines(value),
    "webhook_url": lambda value, _: read_webhook_url(value),
    "webhook_secret": lambda value, _: read_secret(value),
    "delete_recordings": lambda value, _: read_yes_or_no(value),
    "lookup": lambda value, _: read_lookup(value),
    "origins": lambda value, _: read_origins(value),
}


def make_tenant(*, default_region: str = "", **raw: Any) -> Tenant:
    """Check and normalise the fields of a tenant; ``default_region`` (such as IL) is where national numbers are.

    None and a missing field are the same. Lists may be given as one text, divided by commas, semicolons or
    lines. A missing id is made of the name, a missing webhook secret is generated. Raises TenantError naming
    every wrong field and what is expected of it.
    """
    given = {"default_region": default_region, **raw}
    values: dict[str, Any] = {}
    wrong: list[str] = []

    for name, check in _CHECKS.items():
        if given.get(name) is not None:
            try:
                values[name] = check(given[name], values.get("default_region", ""))
            except ValueError as error:
                wrong.append(f"{name}: {error}")
    values.pop("default_region", None)
    if given.get("name") is None:
        wrong.append("name: is missing; the name of the business is expected, such as Harbour Dental")
    if given.get("id") is None and "name" in values:
        values["id"] = slug_of(values["name"])
        if not values["id"]:
            wrong.append(f"id: none can be made of the name {values['name']!r}; give one, such as harbour-dental")
    wrong += [f"{name}: there is no such field{_nearest(name)}" for name in raw if name not in FIELDS]
    if wrong:
        raise TenantError("the tenant cannot be used", wrong)
    if values.get("webhook_url") and "webhook_secret" not in values:
        values["webhook_secret"] = make_secret()
    return Tenant(**values)


def change_tenant(tenant: Tenant, *, default_region: str = "", **raw: Any) -> Tenant:
    """``tenant`` with the named fields changed; None puts a field back to its default.

    Its webhook secret stays, unless it is named too. Raises TenantError, as ``make_tenant``.
    """
    return make_tenant(default_region=default_region, **{**attrs.asdict(tenant, recurse=False), **raw})


def shared_numbers(tenants: Iterable[Tenant]) -> list[str]:
    """A sentence for each number that more than one of ``tenants`` claims."""
    owners: dict[str, list[str]] = {}
    for tenant in tenants:
        for number in tenant.numbers:
            owners.setdefault(number, []).append(tenant.id)
    return [
        f"numbers: {number} can belong to one tenant only, not to {' and '.join(ids)}"
        for number, ids in owners.items()
        if len(ids) > 1
    ]


def make_secret() -> str:
    """A new key for the signatures of a tenant's webhook."""
    return f"whsec_{secrets.token_urlsafe(_SECRET_BYTES)}"


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, FIELDS, 1)
    return f"; did you mean {near[0]}?" if near else ""
