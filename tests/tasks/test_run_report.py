"""The page about a run: what it says, that it needs nothing else, and how it looks in a browser."""

import copy
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from tests.party.parties import images, small_model
from threepc.cli import main
from threepc.errors import InputError
from threepc.party import tracing
from threepc.party.one_host import open_parties
from threepc.party.record import report
from threepc.tasks.run_report import write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder with the report and the trace of a run, and of a second one without its first layers, which has twice the bytes."""
    model, folder = small_model(), tmp_path_factory.mktemp("run")
    with open_parties(model, "memory", traced=True) as parties:
        _, record = parties.infer(images(2))
    tracing.write(folder / "trace.json", parties.timelines)
    made = report(model.public, record, 2, None, parties.setup_links, parties.setup_seconds)
    (folder / "run.json").write_text(json.dumps(made))
    other = copy.deepcopy(made) | {"model": "<b>other</b>", "layers": made["layers"][2:]}
    other["bytes"]["total"] *= 2
    (folder / "other.json").write_text(json.dumps(other))
    return folder, made


def test_a_page_about_one_run(run, tmp_path):
    folder, made = run
    page = write_page(tmp_path / "p.html", folder / "run.json").read_text()
    assert f"<h1>{made['model']}</h1>" in page and f"{made['bytes']['total'] / 1e6:,.3f} MB" in page
    rows = re.findall(r'<td class="text">(.*?)</td><td class="text">(.*?)</td>', page)
    assert rows == [(layer["name"], layer["kind"]) for layer in made["layers"]]
    sent = made["links"]["provider->server"]["offline"]["bytes"]
    assert f"{sent / 1e6:,.3f}" in re.search(r'<tr><td class="text">provider</td>.*?</tr>', page, re.DOTALL)[0]
    assert "Critical path" not in page and "Compared with" not in page


def test_a_page_about_two_runs_and_a_trace(run, tmp_path):
    folder, made = run
    page = write_page(tmp_path / "p.html", folder / "run.json", folder / "other.json", folder / "trace.json").read_text()
    assert "Critical path" in page and "Time by layer and party" in page and "Compared with other.json" in page
    assert "&lt;b&gt;other&lt;/b&gt;" in page and "<b>other" not in page
    assert re.search(r"total, bytes an image</td>\s*<td>[^<]*</td><td>[^<]*</td>\s*<td class=\"more\">2.00 x</td>", page)
    table = re.search(r'<table id="changes">.*?</table>', page, re.DOTALL)[0]
    assert all(f'<td class="text">{layer["name"]}</td>' in table for layer in made["layers"])


def test_a_page_needs_nothing_else(run, tmp_path):
    folder, _ = run
    page = write_page(tmp_path / "p.html", folder / "run.json", folder / "other.json", folder / "trace.json").read_text()
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|https?:|src=|href=", page)


def test_the_command(run, tmp_path, capsys):
    folder, _ = run
    words = [str(folder / "run.json"), "--html", str(tmp_path / "p.html")]
    assert main.status(["report-run", *words]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'p.html'}\n"
    assert main.status(["report-run", str(folder / "trace.json"), *words[1:]]) == 2
    assert "is no report of a secure run: 'threepc run --report FILE' writes one" in capsys.readouterr().err


def _broken(made):
    """Reports that lack something, or have something else in its place."""
    yield []
    for key in ("seconds", "bytes", "layers", "links", "peak_rss_mb", "model", "images", "messages_online"):
        yield {name: value for name, value in made.items() if name != key}
        yield made | {key: [None]}
    yield made | {"layers": [{"name": "a"}]}
    yield made | {"links": {"a->b": {"online": 3}}}
    yield made | {"seconds": made["seconds"] | {"total": "1"}}


def test_something_else_is_refused(run, tmp_path):
    for broken in _broken(run[1]):
        (tmp_path / "broken.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match="is no report of a secure run"):
            write_page(tmp_path / "p.html", tmp_path / "broken.json")
    assert not (tmp_path / "p.html").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")
def test_in_a_browser(run, tmp_path):
    """The bars, the path and the tables are drawn, in their colours, and nothing overflows the page's width."""
    folder, _ = run
    page = write_page(tmp_path / "p.html", folder / "run.json", folder / "other.json", folder / "trace.json")
    picture = tmp_path / "p.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1200,6000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [BROWSER, *options, f"--screenshot={picture}", page.as_uri()], capture_output=True, text=True, check=False, timeout=120
    )
    assert picture.exists(), done.stderr
    pixels = cv2.imread(str(picture))[:, :, ::-1]
    assert pixels.shape == (6000, 1200, 3)
    count = lambda *colour: int((pixels == np.array(colour)).all(axis=2).sum())
    assert count(0x44, 0x77, 0xAA) > 2000  # the client on the path, what is computed, seconds
    assert count(0xEE, 0x66, 0x77) > 500  # the server on the path
    assert count(0xCC, 0xBB, 0x44) > 500  # bytes
    assert (pixels[:, :40] == 255).all() and (pixels[:, -40:] == 255).all()  # both margins are empty
    assert (pixels < 128).all(axis=2).sum() > 5000  # text
