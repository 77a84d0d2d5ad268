"""Studies: unattended batches of parameterised notebooks, each point is done once, even after interruptions.

    batch.run("loss_combinations", scale="micro", data="esc50:PATH", workers=2)
    batch.collect("loss_combinations", scale="micro").save()

The names below are imported when first used, as the process of a point needs few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "study": ["Study", "read_study", "study_names"],
        "expansion": ["points"],
        "execution.runner": ["run"],
        "estimate": ["forecast"],
        "study_status": ["listing", "status", "stop"],
        "results": ["collect"],
        "experiments": ["experiment"],
    },
)
