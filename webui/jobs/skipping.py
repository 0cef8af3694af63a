"""What is left out of a job on request while the rest of it is drawn."""

from collections.abc import Collection
from dataclasses import replace

from webui.core.order import Order


def left_out(order: Order, drawn: int) -> tuple[range, Order]:
    """The pictures of the batch that was under way behind ``drawn`` of the order's, and the order that goes on after
    it. Pictures that are drawn together are left out together."""
    count = order.request.count
    behind = min((drawn // count + 1) * count, order.request.image_count)
    return range(drawn, behind), replace(order, finished=behind)


def say(skipped: Collection[int]) -> tuple[str, ...]:
    """A line for people about these pictures of a job, numbered from 0; none where there are none."""
    numbers = [str(index + 1) for index in sorted(skipped)]
    if len(numbers) < 2:
        return tuple(f"Picture {number} was skipped." for number in numbers)
    if len(numbers) > 8:
        return (f"{len(numbers)} pictures were skipped.",)
    return (f"Pictures {', '.join(numbers[:-1])} and {numbers[-1]} were skipped.",)
