"""The attributes a Creator RSA signature covers (PS3.15 C.2), typed in from the standard's module tables.

A check value for the table the product generates: the union of the top-level attributes of the modules named in
C.2 (edition of highdicom 0.28.2), and the attributes only DCMTK's older list (edition 2019c) has, so that
`dcmsign --verify +rc` is content as well.
"""

from __future__ import annotations

from typing import Final

from tests.support.dicom_tree import Elements, find

_CURRENT: Final = """
0008: 0008 0012 0013 0016 0018 0023 002A 0033 0070 0080 0081 1010 1040 1041 1090 113A 1140 114A 1199 2112 2122 2124
0008: 2133 2218 2228 3011 9092 9121 9123 9154 9205 9206 9207 9208 9209 9237 9410
0010: 9431
0018: 0022 0060 0087 1000 1002 1008 100A 100B 1020 1050 1190 1191 11A0 11A2 11A3 11A4 11A5 1200 1201 1204 1205 1320
0018: 1411 1412 1413 1500 1508 5010 5011 5020 5022 5024 5026 5027 5050 6000 7000 7001 7004 7005 7006 7008 700A 700C
0018: 700E 7010 7011 7012 701A 7020 7022 7024 7026 7028 702A 702B 7060 7062 9004 9052 9053 9054 9059 9060 9061 9062
0018: 9063 9064 9065 9066 9067 9073 9098 9100 9101 9126 9174 9175 9198 9199 9297 9328 9330 9332 9361 9371 9410 9423
0018: 9424 9457 9622 9801 9809 980C 980D 980E 980F
0020: 000D 000E 0012 0013 0020 0062 0242 4000 9161 9162 9163 9228 9311
0022: 0028
0028: 0002 0004 0006 0008 0010 0011 0034 0100 0101 0102 0103 0106 0107 0120 0121 0300 0301 0302 1052 1053 1101 1102
0028: 1103 1201 1202 1203 2000 2002 2110 2112 2114 6010 7FE0
003A: 0230 0231 0240
0040: 000A 0316 8302 8303 9096 A032 A040 A043 A050 A073 A078 A07A A07C A120 A121 A122 A123 A124 A130 A132 A138 A13A
0040: A160 A168 A171 A300 A301 A360 A370 A372 A375 A385 A491 A492 A493 A496 A504 A525 A730 A801 B020 E001 E008
0042: 0010 0011 0012 0013 0014 0015
0048: 0301
0054: 0202 0220 0410 0414 0500
0062: 0001 0002 000E 0010 0013
0066: 0001 0002 0011 0101
0068: 6226
0070: 0001 0022 0023 0080 0081 0082 0083 0084 0086 0087 031A 1901 1905
0072: 0002 0008 0100 0102 0420 0421 0422 0424 0430
0076: 0001 0003 0006 0008 000A 000C 000E 0010 0020 0030 0032 0060
0078: 0001 0010 0020 0024 0026 0028 002A 00B0
0080: 0006 0007
0088: 0200
2050: 0020
3006: 0024
300A: 012C 0675 079F 07A0 07A1
300C: 0002
5200: 9229 9230
5400: 0100
7FE0: 0001 0002 0003 0010
"""
_DCMTK_ONLY: Final = """
0008: 0022 0032 3010
0020: 0052 1002
0022: 1095 1097
0048: 0102
0068: 6210 6221 6222 6223 6224 6225 6230 6260 6265 62A0 62A5 63A0 63A4 63A8 63AC
"""
_OVERLAY: Final = frozenset(
    (0x0010, 0x0011, 0x0022, 0x0040, 0x0045, 0x0050, 0x0100, 0x0102, 0x1301, 0x1302, 0x1303, 0x1500, 0x3000)
)


def _tags(table: str) -> frozenset[int]:
    rows = (line.split(": ") for line in table.strip().splitlines())
    return frozenset(int(group, 16) << 16 | int(element, 16) for group, row in rows for element in row.split())


CREATOR_VERSION_UID: Final = 0x00089123
CURRENT: Final = _tags(_CURRENT)
DCMTK_ONLY: Final = _tags(_DCMTK_ONLY)
CREATOR: Final = CURRENT | DCMTK_ONLY


def is_creator_attribute(tag: int) -> bool:
    """Tell whether C.2 covers the attribute. Retired curves (50xx) are left to the caller."""
    group = tag >> 16
    if 0x6000 <= group <= 0x60FE and group % 2 == 0:
        return tag & 0xFFFF in _OVERLAY
    return tag in CREATOR


def creator_elements(elements: Elements) -> Elements:
    """The elements of a data set that C.2 covers, signable or not.

    The Raw Data module counts private elements in where Creator-Version UID (0008,9123) says what they mean; dcmsign
    signs them then as well.
    """
    raw_data = find(elements, CREATOR_VERSION_UID) is not None
    return tuple(
        element
        for element in elements
        if is_creator_attribute(element.tag) or (raw_data and element.tag >> 16 & 1 and element.tag & 0xFFFF)
    )
