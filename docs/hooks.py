"""What the site takes from the rest of the project while MkDocs builds it: the config, the model zoo, the API and the
pages that lie outside docs/. Nothing of segapp but plain data is imported.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from segapp.weights.networks import COLUMNS, NETWORKS, rows
from segapp.weights.zoo import ZOO, ZooEntry

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
PACKAGE = ROOT / "segapp"

PAGES = {
    "data/README.md": "data.md",
    "segapp/weights/embedded/README.md": "embedded.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""The pages outside docs/, and what they are called on the site."""

COPIES = (
    "pyproject.toml",
    "Dockerfile",
    "segapp/data/formats/classes/ade20k.yaml",
    "segapp/data/formats/classes/cityscapes.yaml",
)
"""Files that pages link to and that are shown as they are."""

GROUPS = "config/choices/"
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]*)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the sections of the navigation that are named by a folder, as `Configuration: config/`."""
    config.nav = _filled(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and those that lie outside docs/."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    made |= _config_pages() | _api_pages()
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    for copied in COPIES:
        files.append(File.generated(config, copied, abs_src_path=str(ROOT / copied)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts in what the page asks for, and leads each link to where its file is shown on the site."""
    uri = page.file.src_uri
    if uri == "index.md":
        readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## More\n")[0]
        markdown = markdown.replace("<!-- README -->", _relinked(readme, "README.md", uri))
    if uri == "weights.md":
        markdown = markdown.replace("<!-- networks -->", _network_table())
        markdown = markdown.replace("<!-- zoo -->", _zoo_table()).replace("<!-- cards -->", _zoo_cards())
    if uri in _config_pages() or uri in _api_pages():
        return markdown
    sources = {page: source for source, page in PAGES.items()}
    return _relinked(markdown, sources.get(uri, f"docs/{uri}"), uri)


def _filled(nav: list[Any]) -> list[Any]:
    tools = [page for page in _config_pages() if not page.startswith(GROUPS)]
    choices = [page for page in _config_pages() if page.startswith(GROUPS)]
    sections: dict[str, list[Any]] = {"config/": [*tools, {"Choices": choices}], "api/": list(_api_pages())}
    filled: list[Any] = []
    for entry in nav:
        if not isinstance(entry, dict):
            filled.append(entry)
            continue
        ((title, content),) = entry.items()
        if isinstance(content, list):
            content = _filled(content)
        elif content in sections:
            content = sections[content]
        filled.append({title: content})
    return filled


def _relinked(text: str, source: str, uri: str) -> str:
    """`text` of the file `source`, a path in the clone, with links for the page `uri`."""

    def relinked(link: re.Match[str]) -> str:
        path = normpath(PurePosixPath(source).parent / link[1]) if link[1] else source
        if not (ROOT / path).exists():
            raise PluginError(f"{source} links to {path}, which is not there")
        target, anchor = _shown_at(path)
        return relpath(target, PurePosixPath(uri).parent) + (f"#{anchor}" if anchor else "")

    return _LINK.sub(relinked, text)


def _shown_at(path: str) -> tuple[str, str]:
    """The page or file of the site that shows a file of the clone, and the place on it."""
    folder, _, rest = path.partition("/")
    if path == "README.md":
        return "index.md", ""
    if path in PAGES:
        return PAGES[path], ""
    if folder == "docs":
        return rest, ""
    if folder == "conf":
        return _config_place(PurePosixPath(rest))
    if folder == "segapp" and path.endswith(".py"):
        room = rest.partition("/")[0]
        return f"api/{'segapp' if room.endswith('.py') else room}.md", ""
    return path, ""


# -- config ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """`configs`: names of files in conf/."""

    name: str
    doc: str
    configs: tuple[str, ...]


@cache
def _tools() -> tuple[Tool, ...]:
    """What segapp/commands has a config for: each file's first line is a command that uses it."""
    configs: dict[str, list[str]] = {}
    for path in sorted(CONF.glob("*.yaml")):
        named = re.search(r"(?:tools/|segapp )(\w+)", path.read_text(encoding="utf-8").partition("\n")[0])
        if named is None:
            raise PluginError(f"{path}: the first line names no tool")
        configs.setdefault(named[1], []).append(path.stem)
    modules = {tool: ast.parse((PACKAGE / "commands" / f"{tool}.py").read_text(encoding="utf-8")) for tool in configs}
    return tuple(Tool(tool, ast.get_docstring(modules[tool]) or "", tuple(configs[tool])) for tool in sorted(configs))


def _groups() -> list[PurePosixPath]:
    """The config groups, as paths in conf/."""
    return sorted({PurePosixPath(path.relative_to(CONF).parent.as_posix()) for path in CONF.glob("*/**/*.yaml")})


def _config_place(path: PurePosixPath) -> tuple[str, str]:
    """The page of a file or folder in conf/, and the place on it."""
    if path in _groups():
        return f"{GROUPS}{path}.md", ""
    if path.parent.name:
        return f"{GROUPS}{path.parent}.md", path.stem
    return next((f"config/{tool.name}.md" for tool in _tools() if path.stem in tool.configs), ""), ""


def _choices(path: Path) -> list[str]:
    """The config groups that a file of conf/ takes a choice of, as paths in conf/."""
    defaults = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", ())
    named = [key for entry in defaults if isinstance(entry, dict) for key in entry if not key.startswith("override ")]
    folder = path.relative_to(CONF).parent
    return [(folder / key.removeprefix("optional ").partition("@")[0]).as_posix().lstrip("/") for key in named]


def _shown(path: Path, page: str) -> list[str]:
    """A file of conf/ as lines for a page, with links to what it takes a choice of."""
    text = path.read_text(encoding="utf-8").rstrip()
    lines = [f'```yaml title="{path.relative_to(ROOT).as_posix()}"\n{text}\n```', ""]
    if _choices(path):
        lines += ["Each choice brings values of its own:", ""]
    for group in _choices(path):
        target, _ = _config_place(PurePosixPath(group))
        names = ", ".join(f"`{each.stem}`" for each in sorted((CONF / group).glob("*.yaml")))
        lines.append(f"- [`{group}=`]({relpath(target, PurePosixPath(page).parent)}) {names}")
    return [*lines, ""]


@cache
def _config_pages() -> dict[str, str]:
    """A page for each tool and for each group of choices, in the navigation's order."""
    pages: dict[str, str] = {}
    for tool in _tools():
        page = f"config/{tool.name}.md"
        summary, _, commands = tool.doc.partition("\n\n")
        lines = [f"# segapp {tool.name}", "", summary, "", f"```\n{commands}\n```", ""]
        for config in tool.configs:
            path = CONF / f"{config}.yaml"
            lines += [f"## {path.name}", "", *_shown(path, page)]
        pages[page] = "\n".join(lines)
    for group in _groups():
        page, _ = _config_place(group)
        lines = [f"# {group}=", ""]
        for path in sorted((CONF / group).glob("*.yaml")):
            lines += [f"## {path.stem}", "", *_shown(path, page)]
        pages[page] = "\n".join(lines)
    return pages


# -- API -------------------------------------------------------------------------------------------------------------


@cache
def _api_pages() -> dict[str, str]:
    """A page for what `import segapp` offers, and one for each room."""
    pages = {"api/segapp.md": "# segapp\n\n::: segapp.api\n\n::: segapp.cli\n"}
    for room in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        modules = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in sorted(room.rglob("*.py"))
            if path.name != "__init__.py" or path.read_text(encoding="utf-8").strip()
        ]
        asked = [f"::: {module.removesuffix('.__init__')}" for module in modules]
        pages[f"api/{room.name}.md"] = "\n\n".join([f"# segapp.{room.name}", *asked]) + "\n"
    return pages


# -- model zoo -------------------------------------------------------------------------------------------------------


def _use(name: str, entry: ZooEntry) -> str:
    return f"checkpoint={name}" if entry.kind == "network" else f"encoder_weights={name}"


def _network_table() -> str:
    lines = ["| " + " | ".join((*COLUMNS, "weights")) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows():
        weights = ", ".join(f"`{name}`" for name in NETWORKS[row[0]].weights) or "-"
        lines.append("| " + " | ".join((f"`{row[0]}`", *row[1:], weights)) + " |")
    notes = [f"- `{name}`: {each.note}." for name, each in NETWORKS.items() if each.note]
    return "\n".join([*lines, "", *notes])


def _zoo_table() -> str:
    rows = ["| name | kind | what | published, not measured here |", "|---|---|---|---|"]
    for name, entry in ZOO.items():
        anchor = re.sub(r"[^\w-]", "", name).lower()  # as MkDocs makes it of a heading
        rows.append(f"| [`{name}`](#{anchor}) | {entry.kind} | {entry.what} | {entry.published} |")
    return "\n".join(rows)


def _zoo_cards() -> str:
    cards = []
    for name, entry in ZOO.items():
        facts = {
            "what": entry.what,
            "use": f"`{_use(name, entry)}`",
            "encoder": f"`{entry.encoder}`",
            "trained on": ", ".join(entry.trained_on),
            "published": entry.published if entry.published == "none" else f"{entry.published} ({entry.source})",
            "licence": entry.licence,
            "file": f"<{entry.url}>, about {entry.megabytes} MB",
        }
        if entry.kind == "network":
            facts["classes"] = str(entry.classes or "as the file has them")
            facts["evaluated on"] = f"a canvas of {entry.canvas} px" if entry.canvas else "whole images"
            facts["output stride"] = str(entry.output_stride)
        rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
        cards.append(f"### {name}\n\n| | |\n|---|---|\n{rows}\n")
    return "\n".join(cards)
