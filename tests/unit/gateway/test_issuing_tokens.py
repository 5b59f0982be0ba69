"""Issuing tokens: nobody gives a right that they have not."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from modelyard.core.database import Database
from modelyard.core.errors import InvalidFields, PermissionDenied
from modelyard.core.permissions import ROLE_PERMISSIONS
from modelyard.core.tokens import TokenVerifier
from modelyard.gateway import tables
from modelyard.gateway.tokens import DAY_S, MAX_LIFETIME_S, Tokens
from support.identity import Identity
from support.job_desk import caller


@pytest.fixture
def tokens(database: Database, identity: Identity) -> Tokens:
    return Tokens(database, identity.signer)


async def test_an_issued_token_says_what_was_asked_for(tokens: Tokens, identity: Identity) -> None:
    record = await tokens.issue(
        caller(), subject="notebook", tenant="", roles=frozenset({"viewer", "predictor"}), lifetime_s=DAY_S
    )
    who = TokenVerifier.from_file(identity.keys_file).verify(record.secret)
    assert (who.subject, who.tenant, who.roles) == ("notebook", "default", frozenset({"viewer", "predictor"}))
    assert who.expire_time == pytest.approx(record.expire_time / 1e6)
    assert record.expire_time - record.create_time == pytest.approx(DAY_S * 1e6)


async def test_the_secret_is_kept_nowhere(tokens: Tokens, database: Database) -> None:
    record = await tokens.issue(caller(), subject="a", tenant="", roles=frozenset({"viewer"}), lifetime_s=1)
    async with database.read() as connection:
        row = (await connection.execute(select(tables.tokens))).one()
    assert not any(record.secret in str(value) or str(value) in record.secret for value in row if len(str(value)) > 9)
    (listed,), _ = await tokens.list(tenant="default", page_size=5, page_token="")
    assert listed.secret == ""
    assert listed.id == record.id


@pytest.mark.parametrize("giver", sorted(ROLE_PERMISSIONS))
@pytest.mark.parametrize("given", sorted(ROLE_PERMISSIONS))
async def test_no_role_can_be_given_that_holds_more_than_the_giver(tokens: Tokens, giver: str, given: str) -> None:
    issue = tokens.issue(caller(giver), subject="a", tenant="", roles=frozenset({given}), lifetime_s=60)
    if ROLE_PERMISSIONS[given] <= ROLE_PERMISSIONS[giver]:
        assert (await issue).roles == {given}
    else:
        with pytest.raises(PermissionDenied):
            await issue


async def test_another_tenant_takes_an_administrator(tokens: Tokens) -> None:
    roles = frozenset({"viewer"})
    with pytest.raises(PermissionDenied) as caught:
        await tokens.issue(caller(), subject="a", tenant="other", roles=roles, lifetime_s=60)
    assert caught.value.metadata == {"permission": "tenants.all"}
    record = await tokens.issue(caller("admin"), subject="a", tenant="other", roles=roles, lifetime_s=60)
    assert record.tenant == "other"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("token.subject", {"subject": ""}),
        ("token.subject", {"subject": "a" * 101}),
        ("token.subject", {"subject": "line\nbreak"}),
        ("token.tenant", {"tenant": "Big Corp"}),
        ("token.tenant", {"tenant": "a" * 64}),
        ("token.roles", {"roles": frozenset()}),
        ("lifetime", {"lifetime_s": 0.5}),
        ("lifetime", {"lifetime_s": -3.0}),
        ("lifetime", {"lifetime_s": MAX_LIFETIME_S + 1}),
    ],
)
async def test_wrong_fields_are_named(tokens: Tokens, field: str, values: dict[str, object]) -> None:
    good = {"subject": "a", "tenant": "default", "roles": frozenset({"viewer"}), "lifetime_s": 60.0}
    with pytest.raises(InvalidFields) as caught:
        await tokens.issue(caller("admin"), **(good | values))  # type: ignore[arg-type]
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_tokens_are_listed_by_pages_newest_first_within_a_tenant(tokens: Tokens) -> None:
    roles = frozenset({"viewer"})
    issued = [
        await tokens.issue(caller("admin"), subject=f"s{i}", tenant="t", roles=roles, lifetime_s=60) for i in range(5)
    ]
    await tokens.issue(caller("admin"), subject="x", tenant="other", roles=roles, lifetime_s=60)
    seen, token = [], ""
    while True:
        page, token = await tokens.list(tenant="t", page_size=2, page_token=token)
        seen += page
        if not token:
            break
    assert [record.subject for record in seen] == [record.subject for record in reversed(issued)]
    everybody, _ = await tokens.list(tenant=None, page_size=100, page_token="")
    assert len(everybody) == 6
