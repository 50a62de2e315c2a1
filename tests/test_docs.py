"""The pages that people read in the repository: their links, which the site's build does not follow outside docs/."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    files = [link for link in links if not link.startswith("https:")]
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_no_paragraph_of_the_readme_is_over_five_lines() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = [each.strip().splitlines() for each in text.split("\n\n")]
    assert [lines for lines in paragraphs if len(lines) > 5 and not lines[0].startswith("|")] == []
