"""What MLflow holds of a sweep or an experiment, as a page for people: tables, figures, and what follows from them.

`gather` asks MLflow; everything after it is made of plain data.
"""

from tvae.report.gather import Campaign, gather
from tvae.report.markdown import headline, to_markdown
from tvae.report.page import to_page

__all__ = ["Campaign", "gather", "headline", "to_markdown", "to_page"]
