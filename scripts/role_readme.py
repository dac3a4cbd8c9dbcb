#!/usr/bin/env python3
"""Writes each role's README.md from its meta/argument_specs.yml, the one description of its variables.

With ``--check`` it writes nothing and fails where a README is out of date. Either way it fails where
defaults/main.yml and the description disagree.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROLES = Path(__file__).resolve().parent.parent / "roles"


def paragraphs(text: str | list[str]) -> list[str]:
    """A description as paragraphs of Markdown; ``C(x)`` is Ansible's way to say code."""
    parts = [text] if isinstance(text, str) else text
    return [re.sub(r"\b[CV]\(([^()]*)\)", r"`\1`", " ".join(part.split())) for part in parts]


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def shown(value: Any) -> str:
    """A default in the table, as one would write it in YAML."""
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    )
    return f"`{cell(text)}`"


def rows(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, option in options.items():
        about = " ".join(paragraphs(option.get("description", "")))
        if choices := option.get("choices"):
            about += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        default = "required" if option.get("required") else ""
        if "default" in option:
            default = shown(option["default"])
        kind = option.get("type", "str")
        if elements := option.get("elements"):
            kind = f"{kind} of {elements}"
        yield f"| `{prefix}{name}` | {kind} | {default} | {cell(about)} |"
        yield from rows(option.get("options", {}), f"{prefix}{name}.")


def readme(role: str, specs: dict[str, Any]) -> str:
    """The whole README."""
    lines = [
        f"# Role {role}",
        "",
        "<!-- Made from meta/argument_specs.yml by scripts/role_readme.py: change that file. -->",
    ]
    for entry, spec in specs.items():
        if entry != "main":
            lines += ["", f"## `tasks_from: {entry}`"]
        lines += ["", f"{spec['short_description']}."]
        for paragraph in paragraphs(spec.get("description", [])):
            lines += ["", paragraph]
        if spec.get("options"):
            lines += ["", "| variable | type | default | |", "| --- | --- | --- | --- |"]
            lines += rows(spec["options"])
    return "\n".join(lines) + "\n"


def disagreements(role: str, specs: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Sentences about defaults that are described otherwise, or not at all."""
    options = {
        name: option for spec in specs.values() for name, option in spec.get("options", {}).items()
    }
    described = {name: option["default"] for name, option in options.items() if "default" in option}
    return [
        *(
            f"roles/{role}: {name} is in defaults/main.yml and not in meta/argument_specs.yml."
            for name in sorted(defaults.keys() - options.keys())
        ),
        *(
            f"roles/{role}: {name} has a default in meta/argument_specs.yml and none in defaults/main.yml."
            for name in sorted(described.keys() - defaults.keys())
        ),
        *(
            f"roles/{role}: {name} is {defaults[name]!r} in defaults/main.yml and "
            f"{described[name]!r} in meta/argument_specs.yml."
            for name in sorted(described.keys() & defaults.keys())
            if described[name] != defaults[name]
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the roles' READMEs.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail where one is out of date"
    )
    check = parser.parse_args(arguments).check
    faults: list[str] = []
    for file in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = file.parent.parent
        specs = yaml.safe_load(file.read_text())["argument_specs"]
        defaults_file = role / "defaults" / "main.yml"
        defaults = yaml.safe_load(defaults_file.read_text()) if defaults_file.exists() else {}
        faults += disagreements(role.name, specs, defaults or {})
        wanted, target = readme(role.name, specs), role / "README.md"
        if target.exists() and target.read_text() == wanted:
            continue
        if check:
            faults.append(
                f"{target.relative_to(ROLES.parent)} is out of date: run scripts/role_readme.py."
            )
        else:
            target.write_text(wanted)
            print(f"wrote {target.relative_to(ROLES.parent)}")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
