"""Names of licences, as SPDX lists them, by simple signs in texts and addresses."""

from __future__ import annotations

import re

LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright)([-_.][\w.-]*)?", re.IGNORECASE)
DECLARED = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9][\w.+() -]{1,80})")
CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-nd|-sa)?)/(\d\.\d)|publicdomain/(zero)/)",
    re.IGNORECASE,
)
DEBIAN = re.compile(r"^License:[ \t]*([A-Za-z][\w.+-]{1,40})[ \t]*$", re.MULTILINE)
HEAD = 2**14  # characters of a text in which its licence is looked for

# The first sentence that only this licence has; longer names of a family stand before shorter ones.
SIGNS = [
    ("Apache-2.0", r"Apache License,?\s+Version 2\.0|apache\.org/licenses/LICENSE-2\.0"),
    ("AGPL-3.0", r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3"),
    ("LGPL-3.0", r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3"),
    ("LGPL-2.1", r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1"),
    ("GPL-3.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 3"),
    ("GPL-2.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 2"),
    ("GFDL-1.3", r"GNU Free Documentation License,?\s+Version 1\.3"),
    ("MPL-2.0", r"Mozilla Public License,?\s+(?:Version|v\.?)\s*2\.0"),
    ("PSF-2.0", r"PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2"),
    ("CC0-1.0", r"CC0 1\.0 Universal"),
    ("CC-BY-SA-4.0", r"Attribution-ShareAlike 4\.0 International"),
    ("CC-BY-4.0", r"Attribution 4\.0 International"),
    ("Unlicense", r"This is free and unencumbered software released into the public domain"),
    ("ISC", r"Permission to use, copy, modify, and(?:/or)? distribute this software for any"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
    (
        "BSD-3-Clause",
        r"Redistribution and use in source and binary forms(?s:.{100,3000})"
        r"(?:Neither the name|may not be used to endorse)",
    ),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
]
SIGNS = [(name, re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)) for name, pattern in SIGNS]


def declared_in(text: str) -> str:
    """What an SPDX line near the start of a source file says; "" without one.

    >>> declared_in("/* SPDX-License-Identifier: GPL-2.0-only */")
    'GPL-2.0-only'
    """
    found = DECLARED.search(text, 0, 4096)
    return found[1].strip(" -") if found else ""


def name_of(text: str) -> str:
    """The name of the licence that a text is, names, or gives the address of; "" if unknown.

    >>> name_of("https://creativecommons.org/licenses/by-sa/4.0/deed.de")
    'CC-BY-SA-4.0'
    """
    text = text[:HEAD]
    if name := declared_in(text):
        return name
    if found := CREATIVE_COMMONS.search(text):
        return "CC0-1.0" if found[3] else f"CC-{found[1].upper()}-{found[2]}"
    if found := DEBIAN.search(text):  # the machine-readable debian/copyright
        return found[1]
    return next((name for name, sign in SIGNS if sign.search(text)), "")
