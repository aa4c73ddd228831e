"""docs/installing.md tells the sentences that installing says."""

import re
from pathlib import Path

import pytest
from kestrel.plugin import paths
from kestrel.plugin.installing.pip_errors import CAUSES, OFFLINE, Cause

PAGE = Path(paths.ROOT, "docs", "installing.md").read_text("utf-8")


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.code)
def test_feature_every_cause_is_on_the_page(cause: Cause) -> None:
    message, hint = (
        re.sub(r"\{(host|package)\}", r"*\1*", text).replace(OFFLINE, "(Without a network: see above.)")
        for text in (cause.message, cause.hint)
    )
    assert f"| `{cause.code}` | {message} | {hint} |" in PAGE.splitlines()
