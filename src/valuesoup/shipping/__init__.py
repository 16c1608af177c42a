"""What leaves a run: exact adapters, merged models, folders to serve, each checked against the Soup, with its card."""

from valuesoup.shipping.exported import Check, Cut, Exported, ExportedPolicy
from valuesoup.shipping.exporting import export
from valuesoup.shipping.hub import check_push, push
from valuesoup.shipping.merged import write_merged

__all__ = ["Check", "Cut", "Exported", "ExportedPolicy", "check_push", "export", "push", "write_merged"]
