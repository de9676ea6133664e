"""List what is installed, with versions, licences and hashes: ``make sbom``.

``python docs/tools/sbom.py sbom.json`` writes CycloneDX 1.5 JSON of dytrack and of everything that
it needs in this environment, directly or not. Nothing is asked of a network.
"""

import hashlib
import json
import re
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = "dytrack"


def needed(root: str, extras: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """Return every installed distribution that ``root`` needs, itself included, by name."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra, or of another system
        for line in found[name].requires or ():
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(one.name), more) for more in ("", *one.extras)]
    return found


def licence(about: Any) -> str:  # noqa: ANN401  (a message of the standard library)
    """Return what a distribution says of its licence, the most exact first; empty for nothing."""
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    named = [
        line.split(" :: ")[-1]
        for line in about.get_all("Classifier", [])
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    if named:
        return " AND ".join(named)
    said = str(about.get("License") or "").strip().splitlines()
    return said[0][:100] if said else ""


def component(one: metadata.Distribution) -> dict[str, Any]:
    """Return one distribution as CycloneDX has it."""
    name, said = canonicalize_name(one.metadata["Name"]), licence(one.metadata)
    record = one.read_text("RECORD") or ""
    plain = re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*", said)
    shown = {"expression": said} if plain and "License-Expression" in one.metadata else None
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{one.version}",
        "purl": f"pkg:pypi/{name}@{one.version}",
        "name": name,
        "version": one.version,
        "licenses": [shown or {"license": {"name": said or "not stated"}}],
        "properties": [
            {
                "name": "dytrack:sha256-of-RECORD",
                "value": hashlib.sha256(record.encode()).hexdigest(),
            }
        ],
    }


def bill(root: str = _ROOT, extras: tuple[str, ...] = ("serve", "export")) -> dict[str, Any]:
    """Return the whole document; the same environment gives the same one."""
    found = needed(root, extras)
    parts = sorted((component(one) for one in found.values()), key=lambda part: part["name"])
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(parts, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {"component": next(part for part in parts if part["name"] == root)},
        "components": [part for part in parts if part["name"] != root],
    }


def main(out: str) -> None:
    """Write the bill, and say whose licence is not stated."""
    made = bill()
    Path(out).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    silent = [
        part["name"]
        for part in made["components"]
        if part["licenses"][0].get("license", {}).get("name") == "not stated"
    ]
    sys.stdout.write(f"{out}: {len(made['components'])} packages\n")
    if silent:
        sys.stdout.write(f"no licence stated by: {', '.join(silent)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
