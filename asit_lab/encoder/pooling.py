"""Ways of pooling a clip's tokens into one vector."""

from torch import Tensor

from ..errors import InputError

POOLS = ("mean", "class", "mean+std")


def check_pool(pool: str) -> None:
    """Raises InputError for a name that is not in POOLS."""
    if pool not in POOLS:
        raise InputError(f"pool: {pool!r} is not one of {', '.join(POOLS)}")


def pooled_vector(statistics: Tensor, pool: str) -> Tensor:
    """Class token, mean and standard deviation [B, 3, D] of one layer -> [B, D], or [B, 2 D] for "mean+std"."""
    return statistics[:, 1:].flatten(1) if pool == "mean+std" else statistics[:, 0 if pool == "class" else 1]
