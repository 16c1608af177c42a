"""What the explorer needs beside the package: gradio."""

import os
from typing import Any

from valuesoup.errors import UserError


def import_gradio() -> Any:
    """Return gradio, which then sends no analytics.

    Raises:
        UserError: It is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the explorer needs gradio; install it by `pip install 'valuesoup[explore]'`.") from None
    return gradio
