"""No file runs code: pickles, torch files, code that comes with a model, templates; and none is written that could."""

import ast
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import valuesoup
from valuesoup.config import BaseConfig, RunConfig
from valuesoup.configfile import parse_config
from valuesoup.data.templates import render
from valuesoup.errors import UserError
from valuesoup.evaluation.judge import Template
from valuesoup.expansion.fusion import Target, instruction
from valuesoup.pipeline.run import models_with_own_code
from valuesoup.soup import ValueVector
from valuesoup.soup.base import load_model, load_tokenizer

SOURCE = Path(valuesoup.__file__).parent
BETWEEN_OWN_PROCESSES = {f"store/{name}.py" for name in ("graph", "workers", "ray_actor", "ray_workers", "relay")}
"""They hand stages to processes that the run itself started; nothing of it is ever read from a file."""
NEVER = {"eval", "exec", "compile", "__import__", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp"}
NEVER |= {
    "os.system",
    "os.popen",
    "shelve.open",
    "marshal.loads",
    "marshal.load",
    "joblib.load",
    "dill.load",
    "dill.loads",
}
NEVER |= {
    "pickle.load",
    "pickle.dump",
    "pickle.Unpickler",
    "pd.read_pickle",
    "torch.save",
    "tarfile.open",
    "zipfile.ZipFile",
}


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def test_the_source_calls_nothing_that_runs_what_it_reads() -> None:
    faults = []
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                if (
                    names & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
                    and where not in BETWEEN_OWN_PROCESSES
                ):
                    faults.append(f"{where}:{node.lineno} imports a pickler")
            if not isinstance(node, ast.Call):
                continue
            called, given = _name(node.func), {word.arg: word.value for word in node.keywords}
            on = {name for name, value in given.items() if isinstance(value, ast.Constant) and value.value is True}
            if called in NEVER or on & {"allow_pickle", "shell"}:
                faults.append(f"{where}:{node.lineno} {called}")
            if called == "torch.load" and "weights_only" not in on:
                faults.append(f"{where}:{node.lineno} torch.load without weights_only")
            if "trust_remote_code" in on:
                faults.append(f"{where}:{node.lineno} trusts remote code without being asked")
            if (
                called.endswith("Environment")
                and called.startswith(("Environment", "jinja2"))
                and "autoescape" not in given
            ):
                faults.append(f"{where}:{node.lineno} a template environment that does not say whether it escapes")
    assert not faults, "\n".join(faults)


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def crafted(mark: Path) -> dict[str, bytes]:
    """Return files that create ``mark`` where anything unpickles them."""
    plain = pickle.dumps({"w": Payload(mark)})
    torch_file = io.BytesIO()
    torch.save({"w": Payload(mark)}, torch_file)
    old_torch_file = io.BytesIO()
    torch.save({"w": Payload(mark)}, old_torch_file, _use_new_zipfile_serialization=False)
    return {"pickle": plain, "torch": torch_file.getvalue(), "old torch": old_torch_file.getvalue()}


def test_the_payload_would_run(tmp_path: Path) -> None:
    pickle.loads(crafted(tmp_path / "ran")["pickle"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
def test_a_crafted_adapter_is_refused_and_its_payload_does_not_run(kind: str, tmp_path: Path) -> None:
    mark, folder = tmp_path / "ran", tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    for name in ("adapter_model.bin", "adapter_model.safetensors"):
        (folder / name).write_bytes(crafted(mark)[kind])
        with pytest.raises(UserError, match=r"adapter_model\.safetensors"):
            ValueVector.load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_crafted_checkpoint_is_refused_and_its_payload_does_not_run(kind: str, name: str, tmp_path: Path) -> None:
    mark, folder = tmp_path / "ran", tiny.save_base(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(crafted(mark)[kind])
    with pytest.raises(UserError, match="does not load"):
        load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["rows.pkl", "rows.pt", "rows.bin", "rows.jsonl", "rows.parquet"])
def test_a_crafted_data_file_is_refused_and_its_payload_does_not_run(name: str, tmp_path: Path) -> None:
    for data in crafted(tmp_path / "ran").values():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError):
            valuesoup.load_pairs(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("../../evil.jsonl", "{}")
    with pytest.raises(UserError, match="of no known kind"):
        valuesoup.load_pairs(tmp_path / "rows.zip")


def with_own_code(folder: Path, mark: Path) -> Path:
    """Give a base a model class, and a tokenizer class, of its own whose modules create ``mark``."""
    tiny.save_base(folder)
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto_map}))
    (folder / "own.py").write_text(
        "from pathlib import Path\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(mark)!r}).touch()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder


def test_code_that_comes_with_a_model_runs_only_where_the_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person is asked"))
    mark = tmp_path / "ran"
    folder = with_own_code(tmp_path / "base", mark)
    with pytest.raises(UserError, match="does not load"):
        load_model(folder)
    assert not mark.exists()
    load_model(folder, trust_remote_code=True)
    assert mark.exists(), "the test's code is such as would run"


CONFIG = """\
values:
  kind: {data: kind.jsonl, reward: {model: some/reward, trust_remote_code: %s}}
base: {model: some/base, trust_remote_code: %s}
"""


def test_a_run_says_whose_code_it_lets_run() -> None:
    def named(*trusted: str) -> list[str]:
        return models_with_own_code(parse_config(CONFIG % trusted, "c.yaml"))

    assert named("false", "false") == []
    assert named("false", "true") == ["some/base"]
    assert named("true", "true") == ["some/base", "some/reward"]
    assert RunConfig.model_fields["base"].annotation is BaseConfig
    assert BaseConfig.model_fields["trust_remote_code"].default is False


HOSTILE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{% for i in range(10**12) %}x{% endfor %}",
    "{{ 1 / 0 }}",
    "{{ messages[99].content }}",
    "{{ messages[0]['content'] + 1 }}",
    "{% set _ = messages.append(1) %}",
    "{{ raise_exception('no') }}",
    "{% include '/etc/passwd' %}",
    "{{ unclosed",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_chat_template_is_refused_in_a_sentence(template: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.save_base(tmp_path / "base"))
    tokenizer.chat_template = template
    with pytest.raises(UserError, match="the chat template refuses"):
        render([{"role": "user", "content": "hello"}], tokenizer)


@pytest.mark.parametrize(
    "text",
    ["{{ ''.__class__ }}", "{prompt.__class__}", "{first}", "{values}", "{0.__class__}", "%(prompt)s", r"\g<0>\1"],
)
def test_what_data_and_models_write_is_not_read_as_a_template(text: str, tmp_path: Path) -> None:
    question = Template("kind", "P {prompt} A {first} B {second} {prompt.__class__}", tmp_path / "kind.txt")
    asked = question.question([{"role": "user", "content": text}], text, text)
    assert asked.count(text) >= 3
    assert "<class" not in asked
    target = Target(messages=({"role": "user", "content": text},), missing=("kind",))
    assert instruction("Rewrite: {prompt} {prompt.__class__}", target, ["kind"]).startswith(f"Rewrite: {text} ")
