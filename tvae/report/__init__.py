"""What MLflow holds of a sweep or an experiment, as a page for people: what is best, what matters, what to do next.

`gather` asks MLflow; everything after it is made of plain data.
"""

from tvae.report.gather import Runs, gather
from tvae.report.page import headline, to_markdown, to_page

__all__ = ["Runs", "gather", "headline", "to_markdown", "to_page"]
