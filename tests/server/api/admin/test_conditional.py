"""`If-Match` as versions."""

import pytest
from incomes_server.api.admin.conditional import versions_of

from incomes_plugin.errors import InvalidValue


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        ('"3"', (3,)),
        ('"3", "4"', (3, 4)),
        ('W/"3"', ()),
        ('"abc"', ()),
        ('"9999999999999999999999"', ()),
    ],
)
def test_if_match_names_versions(header, versions):
    assert versions_of(header) == versions


@pytest.mark.parametrize("header", ["3", '"3', "", '"3" "4"', "*, *"])
def test_if_match_of_another_form_is_an_error(header):
    with pytest.raises(InvalidValue):
        versions_of(header)
