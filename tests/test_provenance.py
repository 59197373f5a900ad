"""Figures say what they were made with: a commit is dirty where what is run was changed."""

import subprocess

import torch

from saccade.evaluate import provenance


def test_figures_say_what_they_were_made_with(tmp_path, monkeypatch):
    made = provenance.made_with()
    assert made["machine"]
    assert made["torch"] == torch.__version__
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() is None, "an installed package is part of no checkout"


def test_a_commit_is_dirty_where_what_is_run_was_changed(tmp_path, monkeypatch):
    def git(*words):
        run = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
        return subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    code, result = tmp_path / "src" / "provenance.py", tmp_path / "docs" / "result.json"
    for path in (code, result):
        path.parent.mkdir()
        path.touch()
    git("init", "-q")
    monkeypatch.setattr(provenance, "__file__", str(code))
    assert provenance.commit() is None, "nothing is committed"
    git("add", ".")
    git("commit", "-qm", "all")
    head = git("rev-parse", "--short", "HEAD")
    assert provenance.commit() == head
    result.write_text("{}")
    assert provenance.commit() == head
    new = code.with_name("kernel.c")
    new.touch()
    assert provenance.commit() == f"{head}-dirty"
    new.unlink()
    assert provenance.commit() == head
    code.write_text("1")
    assert provenance.commit() == f"{head}-dirty"
