"""The report as one page of HTML that needs nothing else: no script, no font, no picture from anywhere."""

from tvae.report.blocks import Block, Bullets, Figure, Folded, Heading, Paragraph, Table
from tvae.report.document import document
from tvae.report.figures import STYLE as FIGURES
from tvae.report.findings import study
from tvae.report.gather import Campaign
from tvae.report.markup import Markup, element

__all__ = ["to_page"]

# Whatever a run's name may hold: nothing is run, and nothing is fetched.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1b1b; --muted: #5f6368; --rule: #e3e5e8; --limit: #c04a00; --strong: #f1f6fb;
  --c0: #0072b2; --c1: #009e73; --c2: #aa3377; --c3: #b8860b; --c4: #56a0d3; --c5: #7a5c99;
  --c6: #8c564b; --c7: #767676;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --ink: #e8eaed; --muted: #a0a6ad; --rule: #33373c; --limit: #ff9a57; --strong: #1e2a36;
    --c0: #58b4f0; --c1: #3ecf9f; --c2: #e58cc0; --c3: #e6b93c; --c4: #9ad0f5; --c5: #b9a2dd;
    --c6: #cf9d8f; --c7: #a8a8a8;
  }
}
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word;
}
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 0.5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 2rem 0 0.5rem; }
p, ul { margin: 0 0 1rem; max-width: 46rem; }
ul { padding-left: 1.2rem; }
li { margin-bottom: 0.45rem; }
h1 + p { color: var(--muted); }
figure { margin: 1.25rem 0; overflow-x: auto; }
figcaption, caption { color: var(--muted); font-size: 0.85rem; text-align: left; max-width: 46rem; }
figcaption { margin-top: 0.4rem; }
caption { caption-side: bottom; padding-top: 0.5rem; }
.wide { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-size: 0.8rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.5rem 0.3rem 0; vertical-align: top; text-align: left; }
th { font-weight: 600; color: var(--muted); border-bottom: 1px solid var(--muted); vertical-align: bottom; }
td { border-bottom: 1px solid var(--rule); }
td { overflow-wrap: break-word; }
th.number, td.number { text-align: right; white-space: nowrap; }
td.code { font: 0.75rem/1.8 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; white-space: nowrap; }
tr.strong td { background: var(--strong); }
tr.strong td:first-child { font-weight: 600; }
details { margin: 0.75rem 0 1.25rem; }
summary { cursor: pointer; color: var(--muted); font-size: 0.9rem; }
"""


def to_page(campaign: Campaign) -> str:
    """Return the report as a page that can be opened from anywhere, MLflow's view of artifacts included."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{campaign.name}: report"),
        element("style", Markup(STYLE + FIGURES)),
    )
    body = element("body", *map(_block, document(study(campaign))))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _block(block: Block) -> Markup:
    match block:
        case Heading(level, text):
            return element(f"h{level}", text)
        case Paragraph(text):
            return element("p", text)
        case Bullets(items):
            return element("ul", *(element("li", *_item(*item)) for item in items))
        case Table():
            return _table(block)
        case Figure(drawing, caption):
            return element("figure", drawing.svg(), element("figcaption", caption))
        case Folded(title, blocks):
            return element("details", element("summary", title), *map(_block, blocks))


def _item(first: str, rest: str) -> list[str | Markup]:
    return [element("strong", first), f" {rest}"] if first else [rest]


def _table(table: Table) -> Markup:
    def cells(kind: str, row: tuple[str, ...]) -> list[Markup]:
        style = ["code" if i in table.codes else "" if i in table.words else "number" for i in range(len(row))]
        return [element(kind, text, class_=of) for text, of in zip(row, style, strict=True)]

    rows = [
        element("tr", *cells("td", row), class_="strong" if i in table.strong else "")
        for i, row in enumerate(table.rows)
    ]
    head = element("thead", element("tr", *cells("th", table.columns)))
    caption = [element("caption", table.caption)] if table.caption else []
    return element("div", element("table", *caption, head, element("tbody", *rows)), class_="wide")
