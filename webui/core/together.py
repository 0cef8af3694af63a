"""What jobs must have in common to be drawn together: their steps are then the same forwards of one network."""

from collections.abc import Hashable

from webui.core.order import Order
from webui.core.stages import Pass


def meeting(order: Order) -> Hashable | None:
    """The same for orders that can be drawn in the same forwards; None for one that is drawn by itself.

    Steps, sampler, guidance and prompts may differ, and where it begins. What has several stages, changes weights on
    its way, is to be strict, or asks more of the network than an answer to a prompt, is drawn by itself.
    """
    first = order.stages[0]
    if len(order.stages) > 1 or not isinstance(first, Pass) or order.request.strict:
        return None
    steers = first.pag or first.nag or first.controls or first.references or first.regions or first.lora_schedules
    if steers or first.int8 or first.reuse > 1 or first.token_merging or first.begin not in ("noise", "picture"):
        return None
    return first.model, first.lenders, first.vae, first.size, first.loras
