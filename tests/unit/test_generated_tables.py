"""The committed tables are what their generators make; nobody edits them by hand."""

from __future__ import annotations

from statistics import median

import pytest

from scripts.make_dictionary import DICTIONARY, dictionary
from scripts.make_profiles import MODULES, PROFILES, UIDS_AND_CREATION, profiles
from scripts.module_tables import load_tables
from scripts.profile_coverage import DOCUMENT, coverages, document
from tests.support.creator_attributes import CURRENT
from tests.support.hostile_ca import catalogue as hostile_ca

TABLES = load_tables()


def test_the_dictionary_is_that_of_the_installed_pydicom() -> None:
    assert DICTIONARY.read_text("ascii") == dictionary()


@pytest.mark.parametrize(("name", "content"), profiles(TABLES).items())
def test_the_profiles_are_those_of_the_module_tables(name: str, content: str) -> None:
    assert (PROFILES / name).read_text("ascii") == content


def test_no_other_profile_is_shipped() -> None:
    assert {path.name for path in PROFILES.glob("*.json")} == set(profiles(TABLES))


def test_the_document_on_profiles_shows_the_coverage_of_these_profiles() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert document(text, TABLES) == text


def test_the_document_on_hostile_cas_shows_the_registry() -> None:
    assert hostile_ca.DOCUMENT.read_text("utf-8") == hostile_ca.document()


def test_the_modules_of_c_2_have_the_attributes_of_the_standard() -> None:
    attributes = TABLES.attributes(MODULES).union(UIDS_AND_CREATION)
    assert len(attributes) == 323
    assert {int(tag, 16) for tag in attributes if not tag.startswith("60xx")} == CURRENT


def test_c_2_covers_the_known_share_of_the_iods() -> None:
    """The figures were taken from the full tables, by a program that shares nothing with this one."""
    of_c_2 = TABLES.attributes(MODULES).union(UIDS_AND_CREATION)
    left_out = {"patient", "patient-study", "general-study", "clinical-trial-subject", "clinical-trial-study"}
    shares = {}
    for iod, modules in TABLES.iods.items():
        attributes = TABLES.attributes(set(modules) - left_out)
        shares[iod] = (len(attributes & of_c_2), len(attributes))
    assert len(shares) == 175
    assert shares["ct-image"] == (103, 256)
    assert shares["rt-plan"] == (31, 116)
    assert shares["12-lead-ecg"] == (35, 106)
    assert shares["basic-text-sr"] == (70, 111)
    percentages = [100 * covered / count for covered, count in shares.values()]
    assert round(median(percentages)) == 39
    assert sum(percentage < 30 for percentage in percentages) == 28


def test_creator_plus_covers_nearly_all_technical_attributes_of_every_iod_that_can_be_signed() -> None:
    signable = [one for one in coverages(TABLES) if one.signable]
    assert len(signable) == 165
    assert all(one.creator_rsa < one.creator_plus for one in signable)
    assert min(one.share(one.creator_plus) for one in signable) > 80
    assert max(len(one.technical - one.creator_plus) for one in signable) <= 14
