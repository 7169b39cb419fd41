"""The command line starts light, and its errors are one line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, write_scores

HEAVY = ("torch", "transformers", "diffusers", "peft", "deepspeed", "h5py", "pandas", "scipy", "matplotlib")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_import_is_light():
    code = f"import sys, promptecho.cli; print([name for name in {HEAVY} if name in sys.modules])"
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_a_line_that_names_its_command_gets_what_it_gets_among_all():
    """As the rules of the workflow do: other commands are not imported."""
    code = (
        "import json, sys, typer\n"
        "from promptecho import cli\n"
        "from typer.testing import CliRunner\n"
        "names = [*cli.STAGES, *cli.BESIDE]\n"
        "alone, files = {}, {}\n"
        "for name in names:\n"
        "    before = set(sys.modules)\n"
        "    alone[name] = CliRunner().invoke(cli.make_app(name), [name, '--help']).output\n"
        "    files[name] = [one.rpartition('.')[2] for one in set(sys.modules) - before if '.commands.' in one]\n"
        "whole = {name: CliRunner().invoke(cli.app, [name, '--help']).output for name in names}\n"
        "print(json.dumps([alone, whole, files, sorted(typer.main.get_command(cli.app).commands)]))\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    alone, whole, files, names = json.loads(result.stdout)
    assert alone == whole and all(f"Usage: promptecho {name}" in text for name, text in whole.items())
    assert sorted(whole) == names
    beside = {"options", "files", "settings"}  # what several have in common
    # `figures words` is one of the commands of `figures`.
    files = {name: [file for file in found if not file.startswith(f"{name}_")] for name, found in files.items()}
    elsewhere = {"score": set(), "judge": {"score"}, "try": set()}  # try_adapter.py is left out as figures_words.py is
    assert {name: set(found) - beside for name, found in files.items()} == {
        name: elsewhere.get(name, {name.replace("-", "_")}) for name in names
    }


def test_what_a_command_may_import_before_its_work(tmp_path):
    """Jobs are many, and each pays for it again."""
    told = dict.fromkeys(
        ("backend", "mode", "judge_model", "config_digest", "git_commit", "prompts_digest"), "as it should be"
    )
    provenance = Provenance(
        experiment="e", run="base", step=0, benchmark="geneval", scorer="geneval", n=1, failures=0, **told
    )
    items = [ScoreItem(prompt_id="0", image_index=0, group="single_object", outcome=1.0, failed=False)]
    write_scores(tmp_path / "0.json", Scores(provenance=provenance, summary={"overall": 1.0}, items=items))
    config = ["--config", "config/experiments/shapes.yaml"]
    scored = ["score", "--benchmark", "dpg", "--experiment", "e", "--run", "base", "--step", "0", "--out", "1.json"]
    scored += ["--images", "absent"]
    models = ("promptecho.config.load", "promptecho.config.models")
    for arguments, code, absent in [
        (["tables", "--table", "geneval", "--scores", tmp_path / "0.json", "--out", tmp_path], 0, models),
        (["benchmarks", "heldout", "--captions", "absent", "--count", "1", "--out", "o"], 1, models),
        (["caption", "list", "--images", "docs", "--out", tmp_path / "list"], 0, ("scipy",)),
        ([*scored, *config], 1, ("scipy",)),  # the embedded world's oracle looks at the first image with it
    ]:
        program = (
            f"import sys\nfrom promptecho.cli import main\nsys.argv[1:] = {[str(word) for word in arguments]!r}\n"
            f"heavy = {[*(name for name in HEAVY if name != 'scipy'), *absent]!r}\n"
            "try:\n    main()\nfinally:\n    print([name for name in heavy if name in sys.modules])\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )
        assert (result.returncode, result.stdout.splitlines()[-1:]) == (code, ["[]"]), (arguments, result)


def test_every_command_has_help():
    code = (
        "import typer, promptecho.cli\n"
        "group = typer.main.get_command(promptecho.cli.app)\n"
        "for name, command in group.commands.items():\n"
        "    assert command.help, name\n"
        "    print(name)\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert "config" in result.stdout.split()


def test_error_is_one_line_and_traceback_on_request():
    result = run("-m", "promptecho", "config", "check", "absent.yaml")
    assert result.returncode == 1
    assert result.stderr == "promptecho: absent.yaml: no such configuration file\n"
    debug = run("-m", "promptecho", "--debug", "config", "check", "absent.yaml")
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


def test_an_error_is_one_write_so_that_lines_of_ranks_do_not_mix():
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    command = [sys.executable, "-u", "-m", "promptecho", "config", "check", "absent.yaml"]
    with reader, writer:
        assert subprocess.run(command, stderr=writer, check=False).returncode == 1
        assert reader.recv(4096) == b"promptecho: absent.yaml: no such configuration file\n"


def test_what_can_be_known_at_once_is_said_before_torch_is_imported(tmp_path):
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "c.png").write_text("no image")
    images = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    shapes = ["--config", "config/experiments/shapes.yaml"]
    train = ["train", *shapes, "--captions", "c", "--out", "o", "--work", "w", "--to"]
    for arguments, expected in [
        (
            ["reward", *images, "--vlm", "/no/vlm", "--label", "x"],
            ["/no/vlm: no such VLM folder", "c.png: not a readable image"],
        ),
        (["reward", *images[:2], "--vlm", "shaps", "--label", "x"], ["correct the path; did you mean shapes?"]),
        (["reward", *images[:2], "--vlm", "shapes"], ["give either --label TEXT"]),
        (["adapter", "import", *shapes, "--source", "/no/lora", "--out", "o"], ["/no/lora: no such folder or file"]),
        ([*train, "15", "--run", "promptecho-s9"], ["no such run", "did you mean promptecho-s1?"]),
        ([*train, "40", "--run", "promptecho-s1"], ["run promptecho-s1 has no such checkpoint (it has 10, 20)"]),
    ]:
        code = (
            "import sys\nfrom promptecho.cli import main\nsys.argv[1:] = " + repr(arguments) + "\n"
            "try:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )
        assert result.returncode in (1, 2) and result.stdout.strip() == "False", result
        assert all(text in result.stderr for text in expected), result.stderr
        assert "Traceback" not in result.stderr


def test_ctrl_c_while_modules_are_imported_is_a_sentence():
    """At whatever module it comes: here when the command's is, and while the commands are put together."""
    for where in ("promptecho.commands.config", "promptecho.commands.examples", "typer.main.get_command"):
        code = (
            "import os, signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"module, _, function = {where!r}.rpartition('.')\n"
            "def look(frame, event, _):\n"
            "    name, code = frame.f_globals.get('__name__'), frame.f_code.co_name\n"
            f"    if event == 'call' and (name == {where!r} or (name, code) == (module, function)):\n"
            "        sys.setprofile(None)\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "from promptecho.__main__ import run\n"
            "sys.argv[1:] = ['config', 'check', 'absent.yaml']\n"
            "sys.setprofile(look)\n"
            "run()\n"
        )
        result = run("-c", code)
        assert (result.returncode, result.stderr) == (130, "promptecho: interrupted; the same command goes on\n")
