"""What the package and the documentation say of themselves, in several places alike."""

import json
import re
import tomllib
from pathlib import Path

import yaml

import ucjax
from ucjax.report.glossary import GLOSSARY, PROTOCOL

DOCS = Path("docs")


def project():
    return tomllib.loads(Path("pyproject.toml").read_text())["project"]


def test_one_version_and_one_licence_everywhere():
    citation = yaml.safe_load(Path("CITATION.cff").read_text())
    assert {citation["version"], project()["version"]} == {ucjax.__version__}
    assert {citation["license"], project()["license"]} == {"Apache-2.0"}


def test_weights_and_their_cards_are_in_the_package():
    patterns = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]
    held = {path for glob in patterns["package-data"]["ucjax"] for path in Path("ucjax").glob(glob)}
    weights = {*Path("ucjax").rglob("*.safetensors")}
    assert weights
    assert weights | {path.parent / "README.md" for path in weights} <= held


def test_every_config_is_in_a_package():
    bare = [x for x in Path("configs").rglob("*.py") if not (x.parent / "__init__.py").exists()]
    assert not bare, "pip would leave them out: add __init__.py"


def test_the_glossary_of_the_docs_is_that_of_the_pages():
    text = (DOCS / "glossary.md").read_text()
    found = re.findall(r"^(\S.*)\n:   (.*(?:\n    .*)*)", text, re.MULTILINE)
    assert {word: " ".join(meaning.split()) for word, meaning in found} == GLOSSARY
    assert PROTOCOL in " ".join(text.split())


def test_every_page_of_the_docs_is_in_the_menu():
    menu = json.dumps(yaml.safe_load(Path("mkdocs.yml").read_text())["nav"])
    assert {*re.findall(r'"([\w/]+\.md)"', menu)} == {
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")
    }


def test_the_readme_stays_short():
    text = Path("README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1500
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert Path(target).exists() or target == "docs/images/gratings.png", target
