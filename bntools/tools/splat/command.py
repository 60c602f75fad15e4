"""bntools splat: parse, render, ask, write, draw."""

from __future__ import annotations

from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import bad_input
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools splat scene.safetensors --codes sae.safetensors --query q.safetensors --plot map.png
  bntools splat scene.safetensors --codes sae.safetensors --query q.safetensors -o map.safetensors
"""


@click.command("splat", short_help="Render coded elements, and answer queries in code space.", epilog=EPILOG)
@options.input_argument(
    example="bntools splat scene.safetensors --codes sae.safetensors --query q.safetensors"
)
@click.option(
    "--codes", required=True, metavar="FILE", help="The dictionary whose latents the scene's codes count."
)
@click.option(
    "--query", required=True, metavar="FILE", help="Activations: a row a query, in the dictionary's width."
)
@option_blocks.plot("the map of the first query")
@option_blocks.written("the maps [queries, height, width] as an artifact")
@option_blocks.replacing("output")
@options.common
def command(
    session: Session, source: str, codes: str, query: str, plot: str | None, output: str | None, force: bool
) -> None:
    """Where in the picture of the Gaussians in INPUT is what the queries ask for?

    Codes are composed, not features: the map in the features' dimensions is never made.
    """
    from bntools.core.artifact.reader import Artifact
    from bntools.core.artifact.writer import check_target
    from bntools.core.datasets.activations import open_activations
    from bntools.core.methods.sparse_dictionary import open_dictionary
    from bntools.core.model.open import open_input
    from bntools.core.report import pictures
    from bntools.tools.splat import scene as scenes

    if plot is not None:
        pictures.check(plot)
    if output is not None:
        check_target(output, force)
    session.apply()
    dictionary = open_dictionary(open_input(codes), codes)
    opened = open_input(source)
    if not isinstance(opened, Artifact):
        raise bad_input(f"{source} is not a scene", "a safetensors file, see bntools-splat(1)")
    scene = scenes.read(opened, len(dictionary.D))
    with open_activations(query) as rows:
        if rows.width != dictionary.D.shape[1]:
            raise bad_input(
                f"{query} has rows of {rows.width} numbers, {codes} is for {dictionary.D.shape[1]}"
            )
        queries, columns = rows.load()
    names = [str(name) for name in columns.get("names", range(len(queries)))]
    if session.dry_run:
        report = {"kind": "plan", "pixels": [scene.height, scene.width], "splats": len(scene.index),
                  "queries": len(queries), "memory_bytes": 4 * scene.height * scene.width * len(dictionary.D),
                  }  # fmt: skip
        shown = [[key, str(value)] for key, value in report.items() if key != "kind"]
        return terminal.emit(session, report, lambda console: console.print(terminal.facts("plan", shown)))
    W, seen = scenes.weights(scene, len(dictionary.D), session.threads or 1)
    maps = scenes.maps(W, dictionary.D, queries, scene)
    report = scenes.report(scene, maps, seen, names, dictionary.D)
    if output is not None:
        _save(session, maps, output, force)
    if plot is not None:
        from bntools.tools.splat.plot import draw

        draw(maps[0], names[0], plot)
    if output is None or output != "-":
        terminal.emit(session, report, lambda console: _draw(console, report))
    return None


def _save(session: Session, maps: Any, output: str, force: bool) -> None:
    import torch

    from bntools.core.artifact.writer import Writer
    from bntools.core.model import history

    with Writer(output, "map", force=force) as out:
        out.describe("history", [history.entry("splat", options.argv(), session.seed, [], session.started)])
        out.add("map", torch.from_numpy(maps))


def _draw(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    rows = [
        [q["name"][:40], three(q["max"]), f"{q['at'][0]}, {q['at'][1]}", three(q["mean"])]
        for q in report["queries"]
    ]
    console.print(terminal.table(["query", "largest cosine", "at x, y", "mean"], rows))
    console.print(
        f"{report['splats']:,} splats of {report['codes_a_splat']} codes, {report['hits_a_pixel']:.1f} a pixel, "
        f"{report['pixels'][0]} x {report['pixels'][1]} pixels"
    )
