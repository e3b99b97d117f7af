"""Concept sets that tenants have given: each is good for the jobs of its tenant."""

from __future__ import annotations

from dnd.errors import NotFound
from dnd_services.coordinator.models import ConceptSetRow
from dnd_services.coordinator.store.bulk import insert_rows
from dnd_services.coordinator.store.engine import Store

_REFERENCE = "sha256:"


def keep(store: Store, tenant: str, ref: str) -> None:
    """Takes down that a tenant has given a concept set."""
    with store.writing() as session:
        insert_rows(session, ConceptSetRow, [{"tenant": tenant, "ref": ref}], ignore=True)


def check(store: Store, tenant: str, concept_set: str) -> None:
    """Raises NotFound for the reference of a concept set that the tenant has not given."""
    if not concept_set.startswith(_REFERENCE):
        return  # a name of one that comes with the program
    with store.reading() as session:
        if session.get(ConceptSetRow, (tenant, concept_set)) is None:
            raise NotFound(
                f"There is no concept set {concept_set[:80]!r}: give it with CreateConceptSet."
            )
