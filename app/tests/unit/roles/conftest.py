"""Python that roles bring along is no package: it is loaded from its file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROLES = Path(__file__).parents[4] / "roles"


@pytest.fixture(scope="session")
def from_role() -> Callable[[str], ModuleType]:
    """Load a file by its path under roles/."""

    def load(path: str) -> ModuleType:
        file = ROLES / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
