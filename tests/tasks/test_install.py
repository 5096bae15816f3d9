"""How the harness is made to search our folder, and what happens where it does not fit."""

import sys
import types
import warnings

import pytest

from lmms_ca_plugin.harness import tasks


class Manager:
    """Stands for the harness's task manager: lists what it was told to search."""

    def initialize_tasks(self, include_path=None, include_defaults=True):
        """Returns the paths instead of an index."""
        return include_path, include_defaults


@pytest.fixture
def manager(monkeypatch):
    fresh = type("TaskManager", (), {"initialize_tasks": Manager.initialize_tasks})
    monkeypatch.setitem(sys.modules, "lmms_eval.evaluator", types.ModuleType("lmms_eval.evaluator"))
    module = types.ModuleType("lmms_eval.tasks")
    module.TaskManager = fresh
    monkeypatch.setitem(sys.modules, "lmms_eval.tasks", module)
    monkeypatch.delenv(tasks.OPT_OUT, raising=False)
    return fresh


FOLDER = str(tasks.task_folder())


@pytest.mark.parametrize(
    ("given", "searched"), [(None, [FOLDER]), ("/x", ["/x", FOLDER]), (["/x", "/y"], ["/x", "/y", FOLDER])]
)
def test_our_folder_comes_after_the_users(manager, given, searched):
    tasks.install()
    assert manager().initialize_tasks(given) == (searched, True)
    assert manager().initialize_tasks(include_path=given, include_defaults=False) == (searched, False)


def test_twice_is_once(manager):
    tasks.install()
    tasks.install()
    assert manager().initialize_tasks() == ([FOLDER], True)


def test_opt_out(manager, monkeypatch):
    monkeypatch.setenv(tasks.OPT_OUT, "1")
    tasks.install()
    assert manager().initialize_tasks() == (None, True)


def test_nothing_is_imported_outside_an_evaluation(manager, monkeypatch):
    monkeypatch.delitem(sys.modules, "lmms_eval.evaluator")
    tasks.install()
    assert manager().initialize_tasks() == (None, True)


@pytest.mark.parametrize(
    ("method", "why"),
    [(None, "not as expected"), (lambda self, paths, include_path=None: None, "takes self, paths, include_path")],
)
def test_a_harness_that_does_not_fit_is_left_alone_with_a_warning(manager, method, why):
    if method is None:
        del manager.initialize_tasks
    else:
        manager.initialize_tasks = method
    with pytest.warns(UserWarning, match=rf"{why}.*--include_path {FOLDER}"):
        tasks.install()
    assert getattr(manager, "initialize_tasks", None) is method


def test_a_missing_folder_is_said(manager, monkeypatch, tmp_path):
    monkeypatch.setattr(tasks, "_PACKAGE", tmp_path / "package")
    with pytest.warns(UserWarning, match="tasks folder is missing"):
        tasks.install()


def test_the_wheels_folder_comes_first(monkeypatch, tmp_path):
    for place in ("package/_tasks/ca", "tasks/ca"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(tasks, "_PACKAGE", tmp_path / "package")
    assert tasks.task_folder() == tmp_path / "package" / "_tasks"


def test_the_real_harness_fits(monkeypatch):
    from lmms_eval.tasks import TaskManager as real

    monkeypatch.setitem(sys.modules, "lmms_eval.evaluator", types.ModuleType("lmms_eval.evaluator"))
    monkeypatch.setattr(real, "initialize_tasks", real.initialize_tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks.install()
    names = real(include_defaults=False).all_tasks
    assert {"ca", "ca_gqa", "ca_vqav2", "ca_okvqa", "ca_vizwiz", "ca_textvqa", "ca_docvqa"} <= set(names)
