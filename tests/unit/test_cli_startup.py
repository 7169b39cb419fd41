"""The command line starts light, and its errors are one line."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "diffusers", "peft", "deepspeed", "h5py", "pandas", "scipy", "matplotlib")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_import_is_light():
    code = f"import sys, promptecho.cli; print([name for name in {HEAVY} if name in sys.modules])"
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


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
        ([*train, "20", "--run", "promptecho-s9"], ["no such run", "did you mean promptecho-s1?"]),
        ([*train, "30", "--run", "promptecho-s1"], ["run promptecho-s1 has no such checkpoint (it has 20, 40)"]),
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
    """At whatever module it comes: here when the last command's is, and while the commands are put together."""
    for where in ("promptecho.commands.train", "promptecho.commands.examples", "typer.main.get_command"):
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
