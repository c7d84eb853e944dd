"""Where one model errs on its test split, and what it looked at: `python -m stages.explain <experiment>`."""

import sys
from pathlib import Path

import torch

from segpipe import components, results
from segpipe.failures.explain import explain, write_explanation
from segpipe.failures.page import failure_page
from segpipe.model_io import load_model
from segpipe.params import read_params
from segpipe.shards import Split, read_info


def main() -> None:
    params = read_params()
    if len(sys.argv) != 2 or sys.argv[1] not in params.experiments:
        raise SystemExit(f"usage: python -m stages.explain <experiment>, one of: {', '.join(params.experiments)}")
    name = sys.argv[1]
    out, page = Path("failures") / name, Path("reports") / name / "failures" / "index.html"
    model, config = load_model(Path("models") / name)
    data = Path("data/converted") / params.experiments[name].dataset
    info = read_info(data)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    architecture = components.load("architectures", config["architecture"])
    layers = architecture.cam_layers(model)
    if params.explain.layers == "deepest":
        layers = dict(list(layers.items())[:1])
    explanation = explain(
        model.to(device),
        Split(data, "test"),
        results.read_predictions(Path("evaluations") / name),
        layers=layers,
        grids=architecture.cam_grid(model),
        class_names=info.class_names,
        ignore_index=info.ignore_index,
        mean=config["mean"],
        std=config["std"],
        size=config["size"],
        regions=params.explain.regions,
        seed=params.seed,
        device=device,
    )
    write_explanation(out, explanation)
    page.parent.mkdir(parents=True, exist_ok=True)
    colours = [c.colour for c in info.classes]
    page.write_text(failure_page(explanation, name=name, dataset=info.name, colours=colours, ignore_index=info.ignore_index))
    summary = explanation.summary
    print(f"{name}: {summary['regions']} error regions, {summary['chosen']} explained on {', '.join(layers)}; {page}")
    for finding in summary["findings"]:
        print(f"  {finding['claim']}")


if __name__ == "__main__":
    main()
