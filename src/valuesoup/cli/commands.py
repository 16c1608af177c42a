"""Every command, joined to the application."""

from valuesoup.cli import evidence, exploring, running, starting, using
from valuesoup.cli.app import app as app

COMMANDS = (
    running.demo,
    starting.init,
    running.run,
    running.status,
    running.report,
    evidence.compare,
    evidence.judge,
    evidence.check,
    evidence.audit,
    evidence.methods,
    using.pick,
    using.export,
    exploring.explore,
    starting.doctor,
)
"""In the order of the help."""

for _command in COMMANDS:
    app.command()(_command)
