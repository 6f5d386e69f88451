"""What the site needs beside mkdocs.yml: documents link to files of the repository, which are not on the site."""  # noqa: INP001 - no package

import re

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)\s]*)\)")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """A page whose links out of docs/ have become their text; tests/test_docs.py holds that these lead somewhere in the repository."""
    depth = page.file.src_uri.count("/")  # type: ignore[attr-defined]  # mkdocs is no requirement of the type checker

    def inside(match: re.Match[str]) -> str:
        return match[0] if match[2].count("../") <= depth else match[1]

    return _OUTSIDE.sub(inside, markdown)
