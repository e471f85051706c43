"""No text from outside does anything but show itself, wherever it comes out."""

import csv
import io
import json
import random
import unicodedata
from html.parser import HTMLParser

import pypandoc
import pytest

from lib import foreign, show

HOSTILE = [
    "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "<!--", "-->", "]]>",
    "<!-- <script>", "&lt;b&gt;", "&#60;b&#62;", '" onmouseover="alert(1)', "' onload='x", "`r x`",
    "`{python} 1 + 1`", "{{< include /etc/passwd >}}", "$x$", "$$", "^a^", "~b~", "~~c~~", "@key",
    "[@key]", "[text](javascript:alert(1))", "![x](http://a.b/c.png)", "<http://a.b>",
    "http://a.b", "| a | b |", "a|b", "***", "---", "# one", "1. two", "\\", "\\newpage",
    "#eval(\"1\")",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\rb", "a\nb", "\x00", "\x7f", "\u202egnp.exe",
    "\u2066x\u2069", "\u2028", "\ufeff", "\ud800", "=1+1", "+1", "-1", "@SUM(A1)", "\t=1",
    ":smile:",
    "[^1]", "[^1]: note", ": definition", "::: {.x}", "{.class #id}", "==mark==", "x^2^", "H~2~O",
]  # fmt: skip


def random_texts(count: int = 200) -> list[str]:
    """Texts of the characters that markup, terminals and spreadsheets are made of."""
    chance = random.Random(42)
    letters = "ab <>&\"'`*_~^$@#|\\[](){}!:;=+-./%\n\r\t\x1b\x00\u202e\u2028กา漢\ud800"
    return ["".join(chance.choices(letters, k=chance.randint(1, 24))) for _ in range(count)]


TEXTS = HOSTILE + random_texts()


class Seen(HTMLParser):
    """What a browser would take for text, and every tag and comment."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.text, self.markup = "", []
        self.feed(page)
        self.close()

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.markup.append((tag, dict(attrs)))

    def handle_comment(self, data):
        self.markup.append(("comment", data))

    def handle_decl(self, decl):
        self.markup.append(("declaration", decl))


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_unseen_is_left(text):
    shown = foreign.visible(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
    assert foreign.visible(shown) == shown
    assert foreign.visible("กา é 漢字 👩‍🔬") == "กา é 漢字 👩‍🔬"  # joiners belong to scripts


def test_html_holds_the_text_and_no_markup():
    for text in TEXTS:
        inner = Seen(f"<p>{foreign.in_html(text)}</p>")
        assert inner.text == foreign.visible(text) and inner.markup == [("p", {})]
        attribute = Seen(f'<p title="{foreign.in_html(text)}"></p>')
        assert attribute.markup == [("p", {"title": foreign.visible(text)})]


def test_markdown_in_a_paragraph_and_in_a_cell_shows_the_text_and_no_markup():
    """All texts in one document each: Pandoc as the press calls it, and as Quarto does."""
    shown = [foreign.visible(text) for text in TEXTS]
    paragraphs = "\n\n".join(f"x{show.plain(text)}x" for text in TEXTS)
    table = show.table([[i, f"x{show.plain(text)}x"] for i, text in enumerate(TEXTS)], ["n", "t"])
    for source in (paragraphs, table.data):
        for reader in ("markdown", "markdown+emoji+autolink_bare_uris+mark"):
            document = json.loads(pypandoc.convert_text(source, "json", reader))
            kinds, texts = set(), []
            walk(document["blocks"], kinds, texts)
            allowed = {"Para", "Plain", "Str", "Space", "SoftBreak", "Table"}
            allowed |= {"AlignLeft", "AlignRight", "AlignDefault", "ColWidthDefault", "ColWidth"}
            assert kinds <= allowed, kinds - allowed
            words = [t for t in texts if t.startswith("x")]
            wanted = [" ".join(f"x{text}x".split(" ")) for text in shown]
            assert [squeezed(w) for w in words] == [squeezed(w) for w in wanted]


def squeezed(text: str) -> str:
    return " ".join(text.split())


def walk(node, kinds: set[str], texts: list[str]) -> None:
    """Every kind of element below a node, and the text of every paragraph or cell."""
    if isinstance(node, dict):
        if "t" in node:
            kinds.add(node["t"])
        if node.get("t") in ("Para", "Plain"):
            texts.append(
                "".join(one.get("c", " ") if one["t"] == "Str" else " " for one in node["c"])
            )
        for value in node.values():
            walk(value, kinds, texts)
    elif isinstance(node, list):
        for value in node:
            walk(value, kinds, texts)


def test_json_in_a_script_ends_no_script():
    for text in TEXTS:
        script = foreign.in_script({"text": [text]})
        assert not set("<>&") & set(script) and json.loads(script) == {"text": [text]}


def test_a_sheet_computes_nothing():
    file = io.StringIO()
    csv.writer(file).writerows([[i, foreign.in_sheet(text)] for i, text in enumerate(TEXTS)])
    rows = list(csv.reader(io.StringIO(file.getvalue())))
    assert len(rows) == len(TEXTS)
    for (_, cell), text in zip(rows, TEXTS, strict=True):
        assert cell.lstrip("'") == foreign.visible(text).lstrip("'")
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
