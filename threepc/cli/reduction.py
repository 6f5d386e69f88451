"""`threepc spec`, `distortion`, `knapsack`, `finetune` and `report`: the ReLU-reduction pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from threepc.choices import NETWORKS
from threepc.cli.options import FILE, Command, Positive, json_option, model_arguments, ring_option, size_option

_device = click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")


@click.group()
def spec() -> None:
    """Make and show relu specs, the patches that share a sign."""


@spec.command("import", cls=Command)
@click.argument("pickle", type=FILE)
@click.argument("config")
@click.option("--network", required=True, help="Which of the paper's networks the pickle is for; a wrong name lists them.")
@click.option("--output", type=FILE, required=True, help="The spec to write (JSON).")
@size_option
def import_spec(pickle: Path, config: str, network: str, output: Path, size: tuple[int, int] | None) -> None:
    """Turn a pickled spec of the paper into a relu spec for CONFIG.

    Nothing in the pickle is executed.
    """
    from threepc.console import say
    from threepc.reduction.tasks import spec_import

    found = spec_import(pickle, network, config, output, size)
    say(f"wrote {output}: {len(found.layers)} layers")


@spec.command(cls=Command)
@click.argument("patch", metavar="HxW")
@click.argument("config")
@click.option("--output", type=FILE, required=True, help="The spec to write (JSON).")
@size_option
def uniform(patch: str, config: str, output: Path, size: tuple[int, int] | None) -> None:
    """Make a spec with one patch size everywhere: 4x4, zero or identity."""
    from threepc.console import say
    from threepc.reduction.tasks import spec_uniform

    found = spec_uniform(patch, config, output, size)
    say(f"wrote {output}: {len(found.layers)} layers")


@spec.command(cls=Command)
@click.argument("file", type=FILE)
@click.argument("config")
@size_option
@json_option
def show(file: Path, config: str, size: tuple[int, int] | None, as_json: bool) -> None:
    """Show the DReLUs that a spec keeps, by layer and in all."""
    from threepc.console import new_table, print_table, say_json
    from threepc.reduction.tasks import spec_show

    rows = spec_show(file, config, size)
    if as_json:
        say_json(list(rows))
        return
    table = new_table("layer", "channels", "map", "DReLUs", "of", "kept", "patches", right=("channels", "DReLUs", "of", "kept"))
    for row in rows:
        table.add_row(
            row["layer"], str(row["channels"]), row["map"], f"{row['drelus']:,}", f"{row['full']:,}", f"{row['ratio']:.2%}", row["patches"]
        )
    print_table(table)


@click.command(cls=Command, short_help="What each patch size does to the output.")
@model_arguments
@click.option("--output", type=FILE, required=True, metavar="DIR", help="Folder of the run; the same command goes on where it stopped.")
@click.option(
    "--samples", type=click.IntRange(1), default=64, show_default=True, help="Images of the config's training set to measure with."
)
@click.option("--input", "images", multiple=True, type=FILE, metavar="IMAGE...", help="Image files to measure with instead.")
@size_option
@click.option("--method", type=click.Choice(["exact", "estimate"]), default="exact", show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--backend", type=click.Choice(["loky", "dask", "ray"]), default="loky", show_default=True, help="Where the processes run.")
@click.option("--scheduler", help="Address of a dask or ray cluster.")
@_device
@click.option("--tf32", is_flag=True, help="Allow shorter products on the GPU.")
@click.option(
    "--skip-dominated", type=Positive(), metavar="FACTOR", help="Skip candidates estimated this much worse than one of equal cost."
)
def distortion(config: str, checkpoint: Path | None, output: Path, **settings: Any) -> None:
    """Measure what each patch size in each channel does to the network's output."""
    from threepc.console import say
    from threepc.reduction.tasks import measure_distortion

    found = measure_distortion(config, checkpoint, output, **settings)
    say(f"{len(found.layers)} layers measured with {found.manifest['images']['count']} images; the result is in {output}")
    if settings["method"] == "estimate":
        say(f"rank correlation with the exact distortion, on the candidates measured both ways: {found.rank_correlation:.3f}")


@click.command(cls=Command, short_help="Choose patches within a budget.")
@click.argument("folder", type=FILE)
@click.option("--output", type=FILE, required=True, help="The relu spec to write (JSON); a plot is written beside it.")
@click.option("--ratio", type=Positive(1.0), help="Budget: this part of all DReLUs, such as 0.06.")
@click.option("--drelus", type=click.IntRange(0), help="Budget: this many DReLUs.")
@click.option("--bytes", "megabytes", type=Positive(), metavar="MB", help="Budget: megabytes of one image over all links.")
@click.option("--seconds", type=Positive(), help="Budget: seconds of one image on --network.")
@click.option("--network", type=click.Choice(NETWORKS), default="none", show_default=True)
@ring_option
def knapsack(folder: Path, output: Path, megabytes: float | None, **budget: Any) -> None:
    """Choose the patches of least distortion within a budget, from the FOLDER of a distortion run."""
    from threepc.console import say
    from threepc.reduction.tasks import solve_knapsack

    found, plot = solve_knapsack(folder, output, bytes=None if megabytes is None else megabytes * 1e6, **budget)
    say(
        f"{found.drelus:,} DReLUs; {found.unit} {found.cost:,.6g} of a budget of {found.budget:,.6g} "
        f"(possible: {found.least:,.6g} to {found.full:,.6g})"
    )
    say(f"sum of distortions {found.solution.objective:.6g}, at most {found.solution.gap:.3g} above the optimum")
    say(f"wrote {output} and {plot}")


@click.command(cls=Command)
@click.argument("config")
@click.option("--relu-spec", type=FILE, help="Patches of the block ReLUs; without it the ReLUs stay plain.")
@click.option("--load-from", type=FILE, help="Checkpoint to start from.")
@click.option("--work-dir", type=FILE, required=True, help="Folder for checkpoints and logs.")
@click.option("--resume-from", type=FILE, help="Checkpoint of an interrupted run to go on from.")
@click.option("--average-pool", is_flag=True, help="Replace the stem's max-pooling by average pooling.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the config, such as runner.max_epochs=5.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@_device
@click.option("--launcher", type=click.Choice(["none", "pytorch", "slurm", "mpi"]), default="none", show_default=True)
@click.option("--validate/--no-validate", default=True, show_default=True, help="Evaluate during training, as the config says.")
def finetune(
    config: str, relu_spec: Path | None, load_from: Path | None, work_dir: Path, changes: tuple[str, ...], **settings: Any
) -> None:
    """Train with block ReLUs, by MMLab's own loops."""
    from threepc.console import say
    from threepc.reduction.tasks import finetune_network

    done = finetune_network(config, relu_spec, load_from, work_dir, options=dict(map(_change, changes)), **settings)
    say(
        f"wrote {done.checkpoint}; run it with: threepc run {done.config} {done.checkpoint}"
        + (f" --relu-spec {done.spec}" if done.spec else "")
    )


def _change(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="'--set'")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        return key, value


@click.command(cls=Command, several=("--spec", "--run"), short_help="A page about specs, runs and distortions.")
@click.option("--spec", "specs", multiple=True, type=FILE, metavar="FILE...", help="Relu specs.")
@click.option("--run", "runs", multiple=True, type=FILE, metavar="JSON...", help="Reports of threepc run or evaluate.")
@click.option("--distortion", "folder", type=FILE, metavar="DIR", help="Folder of a distortion run.")
@click.option("--config", help="The specs' network, for DReLUs by layer.")
@size_option
@click.option("--output", type=FILE, required=True, help="The HTML page to write.")
def report(output: Path, **parts: Any) -> None:
    """Write one HTML page about relu specs, runs and distortions."""
    from threepc.console import say
    from threepc.reduction.tasks import make_report

    say(f"wrote {make_report(output, **parts)}")
