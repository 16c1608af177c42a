"""The report: one HTML file that opens offline, every figure as PNG, SVG and CSV, and tables for the terminal."""

from valuesoup.report.model import ReportData
from valuesoup.report.page import write_audit, write_report
from valuesoup.report.tables import frontier_table, print_frontier

__all__ = ["ReportData", "frontier_table", "print_frontier", "write_audit", "write_report"]
