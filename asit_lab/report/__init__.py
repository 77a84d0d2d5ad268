"""Reports studies as a page and as files for a paper: figures with their data, tables, published numbers.

made = asit_lab.report.report(["loss_combinations", "corruption_ratio"], scale="micro")
made.html, made.files
"""

from .build import Report, report

__all__ = ["Report", "report"]
