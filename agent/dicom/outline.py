"""What a walk over a data set found out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SequenceSpan:
    """A top-level sequence as it stands in the instance.

    Args:
        start: Offset of its tag.
        end: Offset behind its last byte.
        header_size: Bytes of tag, VR and length.
        length: Its length field, possibly undefined.
        items: The content of each item, without its header and delimiter.
    """

    start: int
    end: int
    header_size: int
    length: int
    items: tuple[bytes, ...] = field(repr=False)


@dataclass
class Outline:
    """What the walk over a data set found out.

    Args:
        covered: The covered tags, in order.
        values: The captured values.
        mac_parameters: The MAC Parameters Sequence, where there is one.
        signatures: The Digital Signatures Sequence, where there is one.
        mac_parameters_offset: Where a MAC Parameters Sequence belongs (or ends, where there is one).
        signatures_offset: The same for a Digital Signatures Sequence.
        nested_signatures: Offsets of the Digital Signatures Sequences in items.
        nested_fragments: Offsets of the encapsulated Pixel Data in items, such as icons.
        hidden: Tags, in items or in a survey, of what no signature covers and nothing explains.
    """

    covered: list[int] = field(default_factory=list)
    values: dict[int, bytes] = field(default_factory=dict)
    mac_parameters: SequenceSpan | None = None
    signatures: SequenceSpan | None = None
    mac_parameters_offset: int = -1
    signatures_offset: int = -1
    nested_signatures: list[int] = field(default_factory=list)
    nested_fragments: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
