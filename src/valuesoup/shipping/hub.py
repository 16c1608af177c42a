"""Uploading an export to the hub."""

from pathlib import Path

from valuesoup.errors import RunError, UserError


def check_push(repository: str) -> None:
    """Refuse, before any work is done, an upload that cannot succeed.

    Args:
        repository: ``owner/name``.

    Raises:
        UserError: The name is none, or the environment holds no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise UserError("--push takes owner/name, of letters, digits, '-', '_' and '.', such as me/my-soup.")
    if get_token() is None:
        raise UserError("--push needs a token that may write: set HF_TOKEN, or run `hf auth login`.")


def push(folder: str | Path, repository: str) -> str:
    """Upload an export to a model repository, made if need be, private unless it is there already.

    The token comes from the environment (HF_TOKEN or ``hf auth login``) and is written nowhere.

    Args:
        folder: Of the export.
        repository: ``owner/name``.

    Returns:
        The address of the repository.

    Raises:
        UserError: The name or the token is missing or refused.
        RunError: The hub cannot be reached or does not take the files; the export stays where it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_push(repository)
    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of valuesoup")
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(f"the hub refuses the token for {repository}; use one that may write there.") from None
        raise RunError(f"the hub answers {status} for {repository}; the export stays in {folder}.") from None
    except Exception as error:  # of whatever library the hub's client speaks HTTP with
        raise RunError(f"the hub cannot be reached ({type(error).__name__}); the export stays in {folder}.") from error
    return str(address)
