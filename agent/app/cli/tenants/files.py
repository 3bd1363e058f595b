"""Tenants from a file: JSON, TOML or CSV, all of them right or none taken. Pure.

A row names its tenant by ``id``, or by the ``name`` an id can be made of. A tenant that is known already keeps
what its row does not name, its webhook secret above all, so that importing a file twice changes nothing.
"""

import csv
import io
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final, Literal

from agent.core.errors import TenantError
from agent.core.tenant import FIELDS, Tenant, change_tenant, make_tenant, shared_numbers
from agent.core.tenant_fields import slug_of

Form = Literal["json", "toml", "csv"]
FORMS: Final[Mapping[str, Form]] = {".json": "json", ".toml": "toml", ".csv": "csv"}
NOTHING: Final = "nothing was imported"


def form_of(path: PurePath) -> Form:
    """The form of a file, by its name. Raises TenantError."""
    if path.suffix.lower() not in FORMS:
        raise TenantError(f"{path} is none of {', '.join(FORMS)}: these can be imported")
    return FORMS[path.suffix.lower()]


def read_tenants(
    text: str, form: Form = "json", *, known: Mapping[str, Tenant] | None = None, default_region: str = ""
) -> list[Tenant]:
    """The tenants in ``text``, as they are to be kept; ``known`` are those that exist, by id.

    Raises TenantError naming every wrong field of every row, and numbers that would belong to two tenants.
    """
    rows = list({"json": _json_rows, "toml": _toml_rows, "csv": _csv_rows}[form](text))
    if not rows:
        raise TenantError(f"{NOTHING}: there is no tenant in the file")
    known = known or {}
    tenants: dict[str, Tenant] = {}
    faults: list[str] = []
    for where, row in rows:
        try:
            tenant = _tenant(row, known, default_region)
        except TenantError as error:
            faults += [f"{where}: {fault}" for fault in error.faults]
            continue
        if tenant.id in tenants:
            faults.append(f"{where}: id: {tenant.id} was there before")
        tenants[tenant.id] = tenant
    faults += shared_numbers({**known, **tenants}.values())
    if faults:
        raise TenantError(NOTHING, faults)
    return list(tenants.values())


def _tenant(row: Mapping[str, Any], known: Mapping[str, Tenant], default_region: str) -> Tenant:
    id_, name = row.get("id"), row.get("name")
    before = known.get(id_ if isinstance(id_, str) else slug_of(name) if isinstance(name, str) else "")
    if before is None:
        return make_tenant(default_region=default_region, **row)
    return change_tenant(before, default_region=default_region, **{**row, "id": before.id})


def _json_rows(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A list of objects, one object, or an object with the list as its ``tenants``."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TenantError(f"{NOTHING}: the file is not JSON: {error}") from None
    if isinstance(whole, dict):
        whole = whole.get("tenants", [whole])
    return _named(whole)


def _toml_rows(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tables named ``[[tenants]]``."""
    try:
        whole = tomllib.loads(text)
    except ValueError as error:
        raise TenantError(f"{NOTHING}: the file is not TOML: {error}") from None
    return _named(whole.get("tenants", []))


def _named(rows: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TenantError(f"{NOTHING}: a list of tenants is expected, each an object with a name")
    for number, row in enumerate(rows, 1):
        title = row.get("id") or row.get("name")
        yield f"tenant {number}" + (f" ({title})" if isinstance(title, str) else ""), row


def _csv_rows(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A heading of field names, divided by commas, semicolons or tabs; an empty cell names nothing."""
    heading, _, _ = text.partition("\n")
    divider = max(",;\t", key=heading.count)
    lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=divider, strict=True, skipinitialspace=True)
    try:
        columns = [(name or "").strip() for name in lines.fieldnames or ()]
        if unknown := [name for name in columns if name not in FIELDS]:
            raise TenantError(
                f"{NOTHING}: the first line names columns that do not exist",
                [f"{', '.join(map(repr, unknown))}; these do: {', '.join(FIELDS)}"],
            )
        lines.fieldnames = columns
        for row in lines:
            where = f"line {lines.line_num}"
            if None in row:
                raise TenantError(f"{NOTHING}: {where} has more cells than the first line")
            if named := {name: cell for name, cell in row.items() if cell and cell.strip()}:
                yield where, named
    except csv.Error as error:
        raise TenantError(f"{NOTHING}: line {lines.line_num} of the file is not CSV: {error}") from None
