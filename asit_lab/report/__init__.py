"""Studies as pages and files for a paper: figures with their data, tables, and ours beside the published numbers.

found = asit_lab.report.report(["loss_combinations", "corruption_ratio"], scale="micro")
found.html, found.files
"""

from .build import Report, report

__all__ = ["Report", "report"]
