"""Programs whose `__main__` is something special, and programs that set up a library at their top level."""

from __future__ import annotations

import zipapp
from pathlib import Path

import pytest

from programs import Programs

# Each prints what a child has seen of its parent's main module.
BODY = """\
import os
import multiprocessing as mp

mp.set_start_method(os.environ["START_METHOD"])
setting = "as written"


class Thing:
    pass


def work(queue, thing):
    import __main__
    queue.put((setting, type(thing) is Thing, __main__.setting, __name__))


def main():
    global setting
    setting = "changed"
    queue = mp.Queue()
    child = mp.Process(target=lambda: work(queue, Thing()))
    child.start()
    print(*queue.get(timeout=60))
    child.join()
    print("exit code", child.exitcode)
"""
GUARDED = BODY + '\n\nif __name__ == "__main__":\n    main()\n'
UNGUARDED = BODY + '\n\nprint("top level")\nmain()\n'
SAID = ["changed True changed __main__", "exit code 0"]
RUN = ("-m", "bequest", "run")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder for programs."""
    return Programs(tmp_path)


@pytest.mark.parametrize("text", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
@pytest.mark.parametrize("way", ["script import", "script run", "stdin run", "command import"])
def test_script(programs: Programs, clean_method: str, text: str, way: str) -> None:
    """A script runs its top level once, guarded or not, and a child sees what it has set since."""
    said = SAID if text is GUARDED else ["top level", *SAID]

    assert programs.run(text, way, clean_method).lines == said


def test_zipapp(programs: Programs, clean_method: str) -> None:
    """An application in a zip file is a main module like any other."""
    programs.write("app/__main__.py", GUARDED)
    programs.write("app/inside.py", "")
    zipapp.create_archive(programs.folder / "app", programs.folder / "app.pyz")

    assert programs.python(*RUN, "app.pyz", start_method=clean_method).lines == SAID


@pytest.mark.parametrize("name", ["package", "package.part"])
def test_module_of_a_package(programs: Programs, clean_method: str, name: str) -> None:
    """A package, or a module of it, run with -m may use relative imports."""
    programs.write("package/__init__.py", "")
    programs.write("package/sibling.py", "value = 1\n")
    for file in ("__main__", "part"):
        programs.write(f"package/{file}.py", "from . import sibling\n" + GUARDED)

    assert programs.python(*RUN, "-m", name, start_method=clean_method).lines == SAID


def test_run_path(programs: Programs, clean_method: str) -> None:
    """A script that another one runs with `runpy.run_path` as `__main__` is the main module while it runs."""
    programs.write("inner.py", GUARDED)
    programs.write("outer.py", "import runpy\nrunpy.run_path('inner.py', run_name='__main__')\n")

    assert programs.python(*RUN, "outer.py", start_method=clean_method).lines == SAID


def test_executed_main(programs: Programs, clean_method: str) -> None:
    """A program that a launcher runs by `exec` in its main namespace is carried, though no file has it."""
    programs.write("launcher.py", f"exec(compile({GUARDED!r}, '<launched>', 'exec'), globals())\n")

    assert programs.python(*RUN, "launcher.py", start_method=clean_method).lines == SAID


PYTEST = """\
import os
import bequest as mp

def test_local_function_as_target():
    ctx = mp.get_context(os.environ["START_METHOD"])
    queue = ctx.Queue()
    found = {"a": 1}
    child = ctx.Process(target=lambda: queue.put(found))
    child.start()
    assert queue.get(timeout=60) == {"a": 1}
    child.join()
    assert child.exitcode == 0

def test_monkeypatched_module(monkeypatch):
    import helper
    monkeypatch.setattr(helper, "value", 2)
    with mp.get_context(os.environ["START_METHOD"]).Pool(1) as pool:
        assert pool.apply(lambda: helper.value) == 2
"""


def test_pytest_functions(programs: Programs, clean_method: str) -> None:
    """Lambdas inside a pytest test are fine targets, and what a test has patched is patched in a child."""
    programs.write("helper.py", "value = 1\n")
    programs.write("test_inside.py", PYTEST)

    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_inside.py")
    ended = programs.python(*command, start_method=clean_method)

    assert ended.status == 0, ended
    assert "2 passed" in ended.output


DJANGO = """\
import os
import multiprocessing as mp

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
import django

django.setup()
from shop.models import Item

def price(name):
    return Item.objects.get(name=name).price

if __name__ == "__main__":
    mp.set_start_method(os.environ["START_METHOD"])
    from django.db import connection
    with connection.schema_editor() as editor:
        editor.create_model(Item)
    for number in range(3):
        Item.objects.create(name=f"item {number}", price=number)
    with mp.Pool(2) as pool:
        print(pool.map(price, [f"item {number}" for number in range(3)]))
"""
SETTINGS = """\
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}
INSTALLED_APPS = ["shop"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
MODELS = """\
from django.db import models

class Item(models.Model):
    name = models.CharField(max_length=20)
    price = models.IntegerField()
"""


@pytest.mark.parametrize("way", ["script import", "script run"])
def test_django(programs: Programs, clean_method: str, way: str) -> None:
    """A task in a pool asks the database, with `django.setup()` at the top of the main module alone."""
    pytest.importorskip("django", exc_type=ImportError)
    programs.write("site_settings.py", SETTINGS)
    programs.write("shop/__init__.py", "")
    programs.write("shop/models.py", MODELS)

    assert programs.run(DJANGO, way, clean_method).lines == ["[0, 1, 2]"]


OPTIONS = """\
import os
import multiprocessing as mp
import {package}

{setting}

def work(queue):
    queue.put(str({question}))

if __name__ == "__main__":
    mp.set_start_method(os.environ["START_METHOD"])
    queue = mp.SimpleQueue()
    child = mp.Process(target=work, args=(queue,))
    child.start()
    print(queue.get())
    child.join()
"""
LIBRARIES = {
    "matplotlib": ("matplotlib.use('svg')", "matplotlib.get_backend()", "svg"),
    "pandas": ("pandas.set_option('display.max_rows', 7)", "pandas.get_option('display.max_rows')", "7"),
    "numpy": ("numpy.set_printoptions(precision=2)", "numpy.get_printoptions()['precision']", "2"),
    "decimal": ("decimal.getcontext().prec = 5", "decimal.getcontext().prec", "5"),
}


@pytest.mark.parametrize("package", LIBRARIES)
@pytest.mark.parametrize("way", ["script import", "script run"])
def test_options_of_a_library(programs: Programs, clean_method: str, package: str, way: str) -> None:
    """An option that the main module has set on a library holds in a child."""
    pytest.importorskip(package, exc_type=ImportError)
    setting, question, answer = LIBRARIES[package]
    programs.environment["MPLCONFIGDIR"] = str(programs.folder)
    text = OPTIONS.format(package=package, setting=setting, question=question)

    assert programs.run(text, way, clean_method).lines == [answer]
