"""`rapidctl attach`: help, command lines and files of every kind, and what `--check` says of the site."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rapid.core.cluster import Phase
from rapid.core.errors import ConfigInvalid
from rapid.core.findings.base import Finding, Grade
from rapidctl.__main__ import cli
from rapidctl.engines.base import Place
from rapidctl.engines.check import site_findings
from rapidctl.engines.kinds import ENTRIES, load
from rapidctl.engines.options import parse_file, place_of, read_kind, wanted
from tests.ctl.cluster import picture

KINDS = [entry.kind for entry in ENTRIES]
COMMON = ("--instance", "p0", "--node", "h1", "--gpu", "GPU-0")
SGLANG = ("--router-url", "http://r:1", "--engine-url", "http://e:1")
FILE = """
kind = "sglang"
instance = "p0"
node = "h1"
gpus = ["GPU-0"]
[sglang]
router_url = "http://r:1"
engine_url = "http://e:1"
router_ca = "ca.pem"
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["attach", *words], prog_name="rapidctl", terminal_width=80)


def command_of(kind: str) -> click.Command:
    attach = cli.get_command(click.Context(cli), "attach")
    assert isinstance(attach, click.Group)
    command = attach.get_command(click.Context(attach), kind)
    assert command is not None
    return command


# ---- help ----


def test_help_lists_every_kind() -> None:
    said = run("--help").stdout
    assert said == run().stdout, "and so does no word at all"
    for entry in ENTRIES:
        assert re.search(rf"^  {entry.kind} +{re.escape(entry.help[:30])}", said, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_help_that_fits_80_columns(kind: str) -> None:
    result = run(kind, "--help")
    assert result.exit_code == 0
    assert [row for row in result.stdout.splitlines() if len(row) > 80] == []
    for option in wanted(load(kind).options):
        assert option.help, f"{option.key} is not explained"


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_of_a_kind_is_a_command_line_that_parses(kind: str) -> None:
    text = load(kind).examples.replace("\\\n", " ")
    found = re.findall(rf"rapidctl attach {kind} ([^#\n]*)", text)
    assert found
    for words in found:
        if "..." not in shlex.split(words):
            command_of(kind).make_context(kind, shlex.split(words))


def test_the_file_in_the_help_of_sglang_is_one_that_can_be_read() -> None:
    text = load("sglang").examples.partition("# attach-p0.toml\n")[2]
    file, options = parse_file(text, load("sglang"), path=Path("/etc/rapid/attach-p0.toml"))
    assert (file.kind, file.instance, file.gpus) == ("sglang", "p0", ("GPU-1b2c...",))
    assert file.tls is not None
    assert file.tls.ca == Path("/etc/rapid/tls/ca.crt")
    assert options == load("sglang").options(
        router_url="http://10.0.0.9:8000", engine_url="http://127.0.0.1:30000", worker_url="http://10.0.0.1:30000"
    )


# ---- command lines that cannot be used ----


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sglung",), "No such command 'sglung'. Did you mean 'sglang'?"),
        (("sglang", *COMMON), "Missing option '--router-url'"),
        (("sglang", *SGLANG), "Missing option '--instance'"),
        (("sglang", *COMMON, *SGLANG, "--gpu", "GPU-0"), "--gpu: names a GPU twice"),
        (("sglang", *COMMON, *SGLANG, "--role", "both"), "'both' is not one of 'prefill', 'decode', 'mixed'"),
        (("sglang", *COMMON, *SGLANG, "--engine-url", "e:1"), "--engine-url: 'e:1' is no URL of a host"),
        (("sglang", *COMMON, *SGLANG, "--graph-memory-gb", "much"), "'much' is not a valid float"),
        (("--address", "10.0.0.9:1", "sglang", *COMMON, *SGLANG, "--check"), "10.0.0.9:1 is another host, so it needs"),
        (("smg", *COMMON, "--router-url", "http://r:1", "--engine", "any"), "--worker-url: is missing"),
        (("smg", *COMMON, "--router-url", "http://r:1"), "--engine-url: is missing: where the engine answers"),
        (("--check", "sglang", *COMMON, *SGLANG), "--config and --check stand alone, or after the kind"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_refused_naming_the_option(words: tuple[str, ...], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert said in result.output


# ---- files ----


def test_a_file_says_all_that_a_command_line_says(tmp_path: Path) -> None:
    path = tmp_path / "p0.toml"
    path.write_text(FILE)
    kind, text = read_kind(path)
    file, options = parse_file(text, load(kind), path=path)
    assert (kind, file.node, file.role, file.load_socket) == ("sglang", "h1", "", None)
    assert options == load("sglang").options(
        router_url="http://r:1", engine_url="http://e:1", router_ca=tmp_path / "ca.pem"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "sglang"', "", "config key kind: is missing"),
        ('kind = "sglang"', 'kind = "sgl"', "config key kind: 'sgl' is not known; known are sglang, smg"),
        ("router_url", "router_urn", "config key sglang.router_urn: is unknown; did you mean 'router_url'?"),
        ('engine_url = "http://e:1"', "", "config key sglang.engine_url: is missing"),
        ('gpus = ["GPU-0"]', "gpus = []", "config key gpus: is empty"),
        ('node = "h1"', 'node = ""', "config key node: '' is no name"),
        ('node = "h1"', 'node = "h1"\nrole = "both"', "config key role: 'both' is not known"),
        ("[sglang]", "[log]\nlevel = 'loud'\n[sglang]", "config key log.level: 'loud' is not known"),
        ("[sglang]", "[sglang", "p0.toml: "),
        ("http://e:1", "e:1", "config key engine_url: 'e:1' is no URL of a host"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_naming_the_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "p0.toml"
    path.write_text(FILE.replace(old, new, 1).replace('router_ca = "ca.pem"', ""))
    result = run("--config", str(path))
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = run("--config", str(tmp_path / "p0.toml"))
    assert result.exit_code == 2
    assert "p0.toml: there is no such file" in result.output


def test_names_that_the_wire_would_refuse_are_refused_at_once() -> None:
    with pytest.raises(ConfigInvalid, match="is no name"):
        place_of("p0\n", "h1", ("g",), "", reports_load=False)


# ---- what the site says ----


def looked(place: Place, **status: object) -> dict[str, Finding]:
    return {finding.topic: finding for finding in site_findings(place, replace(picture(), **status))}  # type: ignore[arg-type]


def first_of_site() -> tuple[str, str, str]:
    """A node that reports, a GPU of it, and the instance on that GPU."""
    one = next(one for one in picture().instances if one.phase is Phase.SERVING)
    return one.node, one.gpus[0], one.instance


def test_a_place_that_the_controller_knows_and_that_is_free_is_green() -> None:
    node, gpu, _ = first_of_site()
    found = looked(Place("new", node, (gpu,)), instances=())
    assert {topic: finding.grade for topic, finding in found.items()} == dict.fromkeys(
        ("node", "gpus", "instance"), Grade.GREEN
    )


def test_a_node_that_nobody_knows_is_red_and_the_others_are_named() -> None:
    node, gpu, _ = first_of_site()
    found = looked(Place("new", "elsewhere", (gpu,)))["node"]
    assert (found.grade, found.what) == (Grade.RED, "the controller knows no node elsewhere")
    assert node in found.todo


def test_a_gpu_that_the_node_does_not_have_is_red_and_those_it_has_are_named() -> None:
    node, gpu, _ = first_of_site()
    found = looked(Place("new", node, (gpu, "GPU-else")), instances=())["gpus"]
    assert (found.grade, found.what) == (Grade.RED, f"node {node} has no GPU GPU-else")
    assert gpu in found.todo


def test_a_gpu_that_belongs_to_another_instance_is_red() -> None:
    node, gpu, instance = first_of_site()
    found = looked(Place("new", node, (gpu,)))["instance"]
    assert (found.grade, found.what) == (Grade.RED, f"GPU {gpu} belongs to instance {instance}, which lives")


def test_an_instance_of_that_name_that_is_attached_is_said() -> None:
    node, gpu, instance = first_of_site()
    found = looked(Place(instance, node, (gpu,)))["instance"]
    assert found.grade is Grade.YELLOW
    assert "is attached already" in found.what
