"""Compares start weights (ASiT, arXiv 2211.13189, Table III): scratch, pretrained here, published, ImageNet, and
ImageNet then pretrained here; each fine-tuned on one labelled data set."""

from pathlib import Path

from ..config import RunConfig, resolve
from ..encoder import Encoder, load_encoder
from ..errors import InputError
from ..training.pretrain import pretrain
from ..zoo import load_imagenet, open_source
from .comparison import FINETUNE, Evaluation, check_same_evaluation, evaluate


def initialisation_study(
    config: RunConfig,
    data: str,
    out: str | Path,
    published: str | None = None,
    imagenet: str | None = None,
    recipe: str = "micro",
    overrides: list[str] | str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Pretrain `config` from scratch, and from ImageNet's weights where given; fine-tune all; see `evaluate`.

    config: its data.source is for pretraining. data: the labelled data set for fine-tuning. published: such as
    asit:FILE (see `zoo.open_source`). imagenet: a .safetensors file in timm's layout, of config's width, depth and
    heads. Rows whose weights are not given are left out.
    The pretraining runs are in `out`, as pretrained and imagenet-pretrained, and resume like the fine-tuning.
    Raises InputError as `pretrain`, `zoo.open_source` and `evaluate` do.
    """
    folder = resolve(out)
    sources = {"published": published, "ImageNet": imagenet, "ImageNet, pretrained": imagenet}
    order = ["scratch", "pretrained", *(name for name, weights in sources.items() if weights)]
    check_same_evaluation(folder, order, (FINETUNE,), data if isinstance(data, str) else data.source)
    # Load first, so that an error appears before hours of pretraining.
    starts: dict[str, Encoder] = {"scratch": Encoder.random(config, seed)}
    if published:
        starts["published"] = open_source(published)
    if imagenet:
        starts["ImageNet"] = load_imagenet(imagenet, config)
    starts["pretrained"] = _pretrained(config, folder / "pretrained")
    if imagenet:
        from_imagenet = config.with_overrides([f"train.init_from={resolve(imagenet)}"])
        starts["ImageNet, pretrained"] = _pretrained(from_imagenet, folder / "imagenet-pretrained")
    named = {name: starts[name] for name in order}
    return evaluate(named, data, ("finetune",), folder, recipe, overrides, (seed,), untrained=False)


def _pretrained(config: RunConfig, folder: Path) -> Encoder:
    run = pretrain(config, folder)
    if run.status == "interrupted":
        raise KeyboardInterrupt
    if run.status != "finished":
        raise InputError(f"{run.dir}: {run.status}; the same call resumes it")
    return load_encoder(run.dir)
