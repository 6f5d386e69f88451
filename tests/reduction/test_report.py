"""The page: complete, self-contained, and free of what a spec's or report's author might inject."""

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from threepc.errors import InputError
from threepc.graph.relu_spec import ReluSpec, load, patch_counts, save, uniform
from threepc.reduction import store
from threepc.reduction.candidates import candidates
from threepc.reduction.knapsack import allocate
from threepc.reduction.report import save_allocation, write_report


@pytest.fixture
def files(small_graph, tmp_path):
    layers, arrays = [], {"power": np.array(2.0), "rank_correlation": np.array(np.nan)}
    for index, node in enumerate(node for node in small_graph.nodes if node.kind in ("relu", "clip")):
        patches = candidates(*node.shape[1:])
        layers.append({"name": node.name, "kind": node.kind, "shape": list(node.shape), "patches": patches.tolist()})
        arrays[f"layer{index}"] = np.arange(1.0, node.shape[0] + 1)[:, None] * (1 - patch_counts(patches, *node.shape[1:]) / 35)
    folder = tmp_path / "distortion"
    store.open_folder(
        folder, {"version": 1, "model": "small", "method": "exact", "weights": "00", "images": {"count": 3}, "layers": layers}
    )
    store.write_arrays(folder / "distortion.npz", arrays)
    save(uniform(small_graph, 2, 2, "a <b>small</b> one"), tmp_path / "uniform.json")
    runs = [
        {
            "name": f"run {size}",
            "model": "small",
            "bytes": {"total": size},
            "images": 2,
            "accuracy": [0.9, 0.95],
            "seconds": {"total": 1.5},
            "layers": [{"name": "relu", "bytes": size}],
        }
        for size in (100_000, 300_000)
    ]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    return tmp_path


def test_whole_page(files, small_graph):
    path = write_report(
        files / "page.html", specs=[files / "uniform.json"], runs=[files / "runs.json"], distortion=files / "distortion", graph=small_graph
    )
    page = path.read_text()
    assert page.count("<svg") == page.count("</svg>") == 6
    for heading in ("Relu specs", "Distortion against budget", "Accuracy against bytes", "Runs"):
        assert f"<h2>{heading}</h2>" in page
    # 9 + 12 patches of 2x2 on 5x7 in three channels, twice for each of the clip's four.
    assert f"<td>{3 * 12 + 2 * 4 * 12}</td>" in page
    assert "<b>small" not in page and "&lt;b&gt;small" in page
    for piece in page.split("<svg")[1:]:
        ET.fromstring("<svg" + piece[: piece.index("</svg>") + 6])
    # Nothing is loaded: no script, no style sheet, no image, no link to follow but those within a plot.
    assert not any(part in page for part in ("<script", "<link", "<img", "src=", "@import", 'xlink:href="http'))


def test_parts_on_their_own(files):
    assert "DReLUs by layer" not in write_report(files / "a.html", specs=[files / "uniform.json"]).read_text()
    assert "DReLUs by layer" in write_report(files / "b.html", specs=[files / "uniform.json"], distortion=files / "distortion").read_text()
    assert "Relu specs" not in write_report(files / "c.html", runs=[files / "runs.json"]).read_text()


def test_an_allocation_is_kept_with_its_plot(files, small_graph):
    allocation = allocate(store.load(files / "distortion"), ratio=0.3)
    plot = save_allocation(allocation, files / "spec.json")
    assert load(files / "spec.json").to_json() == allocation.spec.to_json()
    assert plot.name == "spec.svg" and "DReLUs" in plot.read_text()
    page = write_report(files / "d.html", specs=[files / "spec.json"], distortion=files / "distortion", graph=small_graph).read_text()
    assert f"{allocation.drelus:,}" in page


def test_bad_input(files, small_graph):
    with pytest.raises(InputError, match=r"^a report needs at least one relu spec, run report or distortion folder$"):
        write_report(files / "page.html")
    (files / "text.json").write_text("no JSON")
    with pytest.raises(InputError, match=r"^the run report .*/text.json: not JSON: Expecting value"):
        write_report(files / "page.html", runs=[files / "text.json"])
    (files / "text.json").write_text("[3]")
    with pytest.raises(InputError, match="is no run report"):
        write_report(files / "page.html", runs=[files / "text.json"])
    (files / "text.json").write_text('{"model": "m", "accuracy": "good", "bytes": {"total": 1}}')
    with pytest.raises(InputError, match="the accuracy is no number"):
        write_report(files / "page.html", runs=[files / "text.json"])
    for text, key in (
        ('{"bytes": 1}', "it has no 'model'"),
        ('[{"model": "m"}, {}]', "it has no 'model'"),
        ('{"model": "m", "bytes": {"total": "1"}}', "its 'bytes' is"),
        ('{"model": "m", "images": true}', "its 'images' is 'True'"),
        ('{"model": "m", "layers": [{"bytes": 1}]}', "its 'layers' is"),
        ('{"model": "m", "layers": [{"name": "relu", "bytes": {"total": 1}}]}', "its 'layers' is"),
    ):
        (files / "text.json").write_text(text)
        with pytest.raises(InputError, match=rf"text\.json is no report of threepc run or evaluate: {key}"):
            write_report(files / "page.html", runs=[files / "text.json"])
    save(ReluSpec("other", {"relu": [[1, 1]] * 3}), files / "other.json")
    with pytest.raises(InputError, match=r"other\.json: the ReLU 'clip' of this network is missing"):
        write_report(files / "page.html", specs=[files / "other.json"], graph=small_graph)
    with pytest.raises(InputError, match="not for the network of the distortion run"):
        write_report(files / "page.html", specs=[files / "other.json"], distortion=files / "distortion")
