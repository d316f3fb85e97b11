"""What a request carries and no prediction uses, as answers list it."""

from collections.abc import Callable, Iterable

MOST_LISTED = 50
LONGEST_NAME = 40  # in characters


def ignored_inputs(names: Iterable[str], reason_of: Callable[[str], str]) -> list[dict[str, str]]:
    """`{field, reason}` of the first MOST_LISTED names, each cut to LONGEST_NAME; one more entry counts the others."""
    every = list(names)
    listed = [{"field": name[:LONGEST_NAME], "reason": reason_of(name)} for name in every[:MOST_LISTED]]
    others = len(every) - len(listed)
    if others:
        listed.append({"field": f"and {others:,} more", "reason": f"Only the first {MOST_LISTED} are listed."})
    return listed
