"""What the privacy card says of an encoder that a user brought."""

from __future__ import annotations


def own_code(encoder: str) -> list[str]:
    """A line for the key `encoder`; none without one."""
    if not encoder:
        return []
    return [
        f"- Encoder: `{encoder}`, the operator's own code, which is trusted: these numbers assume that it "
        "does nothing but map each image to an encoding."
    ]
