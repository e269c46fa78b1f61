"""Finds what modules declare and makes catalogs of it; a mistake in a declaration is one sentence.

Imports no torch by itself: the shipped optimizations, which do, are imported when they are first
asked for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from itertools import product
from types import ModuleType

from diffusers_perf.catalog import mistakes
from diffusers_perf.catalog.declarations import Case, Optimization
from diffusers_perf.catalog.mistakes import is_below
from diffusers_perf.catalog.recording import Declaration, declarations_in
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.registry import Catalog, refuse_namesake
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.messages import declarations as messages

OPTIMIZATIONS = "diffusers_perf.optimizations"


@cache
def shipped() -> Catalog:
    """The optimizations that ship with the library; importing them imports torch."""
    _refuse_without_docstrings()
    catalog = Catalog()
    for name in import_module(OPTIMIZATIONS).TOPICS:
        module = import_module(f"{OPTIMIZATIONS}.{name}")
        _add_all(declarations_in(vars(module)), catalog)
    return catalog


def declared_in(*names: str) -> Catalog:
    """The shipped optimizations and what these modules, with their submodules, declare."""
    catalog = shipped().without_cases()
    for name in names:
        load(name)
        for module in _with_submodules(name):
            _add_all(declarations_in(vars(module)), catalog)
    return catalog


@dataclass(kw_only=True)
class Project:
    """All that a repository declares: for every test module, and in test modules of its own."""

    shared: Catalog
    """Of the modules that the ini option `perf_declarations` names, and what ships."""
    own: dict[str, Catalog] = field(default_factory=dict)
    """By name, of the modules that declare cases themselves."""

    @property
    def cases(self) -> list[Case]:
        """Of all modules; a reference that several have stands once."""
        found: dict[tuple[Workload, str], Case] = {}
        for catalog in self.catalogs:
            for case in catalog.cases:
                found.setdefault((case.workload, case.name), case)
        return list(found.values())

    @property
    def models(self) -> list[str]:
        """Of all cases, each once."""
        return [*dict.fromkeys(case.workload.model for case in self.cases)]

    @property
    def suites(self) -> list[str]:
        """Of all cases, each once."""
        return [*dict.fromkeys(case.suite for case in self.cases)]

    @property
    def catalogs(self) -> tuple[Catalog, ...]:
        return (self.shared, *self.own.values())

    def catalog_of(self, workload: Workload) -> Catalog:
        """The first that has a case on this workload."""
        return next(c for c in self.catalogs if any(case.workload == workload for case in c.cases))

    def add(self, module: ModuleType) -> Catalog:
        """The catalog that a test module runs: its own, or the shared one if it declares no case.

        It knows what ships, what is shared, what the module declares, and optimizations that it
        imported by name. `Refusal` for a mistake, or what another module has declared.
        """
        declarations = declarations_in(vars(module))
        if not any(declaration.makes_cases for declaration in declarations):
            return self.shared
        if module.__name__ not in self.own:
            self.own[module.__name__] = self._own_of(module, declarations)
        return self.own[module.__name__]

    def _own_of(self, module: ModuleType, declarations: list[Declaration]) -> Catalog:
        catalog = self.shared.without_cases()
        for value in vars(module).values():
            if isinstance(value, Optimization) and value.apply.__module__ != module.__name__:
                catalog.optimizations.setdefault(value.name, value)
        _add_all(declarations, catalog)
        known = {messages.SHARED: self.shared, **self.own}
        for case, (place, other) in product(catalog.cases, known.items()):
            try:
                refuse_namesake(case.workload, (own.workload for own in other.cases))
            except ValueError as error:
                raise Refusal(f"{module.__name__}: {error}, in {place}") from None
            same = (own.workload == case.workload for own in other.cases if own.name == case.name)
            if any(same) and not case.is_reference:
                raise Refusal(f"{module.__name__}: {messages.case_of_another(case.id, place)}")
        return catalog


def declares_cases(module: ModuleType) -> bool:
    """Whether a module measures something itself."""
    # Whatever stands in sys.modules is asked, and not all of it is a module.
    namespace = getattr(module, "__dict__", {})
    return any(declaration.makes_cases for declaration in declarations_in(namespace))


def load(name: str) -> ModuleType:
    """Import a module that declares something. `Refusal` if that fails."""
    _refuse_without_docstrings()
    try:
        return import_module(name)
    except Exception as error:
        # A declaration can break in any way as it is read, and is named by its line.
        said = mistakes.in_module(name, error)
        raise Refusal(said or f"{name}: {type(error).__name__}: {error}") from None


def _refuse_without_docstrings() -> None:
    if sys.flags.optimize > 1:
        raise Refusal(messages.NO_DOCSTRINGS)


def _with_submodules(name: str) -> list[ModuleType]:
    """The module and those below it that are imported, in the order of their import."""
    modules = dict(sys.modules)
    return [module for known, module in modules.items() if is_below(known, name)]


def _add_all(declarations: list[Declaration], catalog: Catalog) -> None:
    for declaration in declarations:
        try:
            declaration.into(catalog)
        except ValueError as error:
            place = mistakes.place(declaration.file, declaration.line)
            raise Refusal(f"{place}: {error}") from None
