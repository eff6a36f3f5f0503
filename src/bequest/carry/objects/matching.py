"""Patterns, matches and scanners of `re`.

Pattern -> its text and flags
Scanner -> its phrases and flags -> compiled again
Match   -> its pattern, its string and the way to find it there -> found again
scanner -> its pattern, its string and how often it has searched -> searched again
"""

from __future__ import annotations

from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


@carries("re.Pattern")
def reduce_pattern(pattern: Any, packing: Packing) -> Reduced:
    """Its text and flags; one that a `re.Scanner` has compiled of several texts has none."""
    import re

    if pattern.pattern is None:
        raise NotCarriedError("a re.Scanner has made it of several texts", "Pass the scanner")
    return re.compile, (pattern.pattern, pattern.flags)


@carries("re.Scanner", subclasses=True)
def reduce_lexer(lexer: Any, packing: Packing) -> Reduced:
    """What a `re.Scanner` holds, but for its compiled pattern, and for the match at which it is."""
    from bequest.carry.instances import reduce_by_state

    make, args, state, *_ = reduce_by_state(lexer, drop=("scanner", "match"))
    return make, args, (state, lexer.scanner.flags), None, None, set_lexer


def set_lexer(lexer: Any, state: tuple[Any, int]) -> None:
    """Fill a `re.Scanner`, and compile its phrases."""
    import re

    from bequest.carry.instances import fill

    held, flags = state
    fill(lexer, held)
    lexer.scanner = re.Scanner(lexer.lexicon, flags).scanner  # type: ignore[attr-defined]  # not in typeshed


def rebuild_match(
    pattern: re.Pattern[Any], way: str, string: Any, start: int, end: int
) -> re.Match[Any] | None:
    """Return the match that `pattern` finds in this way at this place."""
    found: re.Match[Any] | None = getattr(pattern, way)(string, start, end)
    return found


def rebuild_scanner(pattern: Any, string: Any, start: int, end: int, searches: int | None) -> Any:
    """Return a scanner after so many searches (None: after all that find something)."""
    scanner = pattern.scanner(string, start, end)
    if searches is None:
        while scanner.search() is not None:
            pass
    else:
        for _ in range(searches):
            scanner.search()
    return scanner


@carries("re.Match")
def reduce_match(match: re.Match[Any], packing: Packing) -> Reduced:
    """The way to find it again, tried here first."""
    pattern, string, start, end = match.re, match.string, match.pos, match.endpos
    if pattern.pattern is None:
        raise NotCarriedError("it is a match of a re.Scanner", "Pass the groups that are needed")
    ways = (
        ("search", start),
        ("match", start),
        ("fullmatch", start),
        ("match", match.start()),
        ("fullmatch", match.start()),
    )
    for way, begin in ways:
        found = getattr(pattern, way)(string, begin, end)
        if found is not None and found.regs == match.regs and found.lastindex == match.lastindex:
            return rebuild_match, (pattern, way, string, begin, end)
    raise NotCarriedError(
        "its pattern does not find it again, because the text has changed since",
        "Pass the groups that are needed",
    )


@carries("_sre.SRE_Scanner")
def reduce_scanner(scanner: Any, packing: Packing) -> Reduced:
    """After as many searches as it has made: counted on another scanner over the same text."""
    from bequest.carry.objects import peek

    peek.expect(_scanner_is_known)
    words = peek.body(scanner)
    string, (start, end) = peek.object_at(words[_STRING]), words[_RANGE]
    if not words[_START]:
        return rebuild_scanner, (scanner.pattern, string, start, end, None)
    trial = scanner.pattern.scanner(string, start, end)
    searches = 0
    while True:
        again = peek.body(trial)
        if (again[_START], again[_FLAGS]) == (words[_START], words[_FLAGS]):
            return rebuild_scanner, (scanner.pattern, string, start, end, searches)
        if trial.search() is None:
            break
        searches += 1
    raise NotCarriedError("its position cannot be found again", "Pass what is left of it as a list")


# Where a scanner keeps its place: words behind the pattern (ptr, beginning, start, end, string, a Py_buffer
# of ten words, pos, endpos, isbytes and charsize, match_all and must_advance), the same from 3.11 to 3.15.
_START, _STRING, _RANGE, _FLAGS = 3, 5, slice(16, 18), 19


def _scanner_is_known() -> bool:
    import re

    from bequest.carry.objects import peek

    text = "ab" * 20
    pattern: Any = re.compile("b")
    scanner = pattern.scanner(text, 2, 33)
    before = peek.body(scanner)
    scanner.search()
    after = peek.body(scanner)
    moved: bool = after[_START] - before[_START] == 2 and before[_RANGE] == [2, 33]
    return moved and before[_STRING] == id(text) and before[_START] - before[_START - 1] == 2
