"""Counts words in files with a pool of workers; written for fork, runs unchanged under every start method.

    python -m bequest run examples/word_count.py README.md docs/guide.md
    python -m bequest run examples/word_count.py --least 8 --top 5 --verbose README.md

prints the most frequent words of the files given (of this file, if none is), one to a line, such as

    process 17
    bequest 16

With --verbose each worker says on standard error when it begins and which file it reads.

What fork gives its workers here, and spawn would not: the parsed options, which `main()` puts into a global; the
logging configuration; a dialect that `main()` registers with the csv module; an initializer that is a closure. Set
START_METHOD to choose a start method.
"""

import argparse
import collections
import csv
import logging
import multiprocessing as mp
import os
import re
import time

options = argparse.Namespace(least=5, top=10, verbose=False)
log = logging.getLogger("word_count")


def words(text):
    """Yield the words of a text that are long enough, in lower case."""
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        if len(word) >= options.least:
            yield word


def read(path):
    """Return the text of a file; of a CSV file, the fields without their delimiters."""
    with open(path, encoding="utf-8", newline="") as file:
        if path.endswith(".csv"):
            return " ".join(field for row in csv.reader(file, "words") for field in row)
        return file.read()


def count(path):
    """Return how often each word stands in a file."""
    text = read(path)
    log.info("%s has %d characters", path, len(text))
    return collections.Counter(words(text))


def parse_options():
    """Read the command line into `options`."""
    parser = argparse.ArgumentParser(description="Count words.")
    parser.add_argument("files", nargs="*", default=[__file__])
    parser.add_argument("--least", type=int, default=5, help="letters of the shortest word that counts")
    parser.add_argument("--top", type=int, default=10, help="how many words are printed")
    parser.add_argument("--verbose", action="store_true", help="say what the workers do")
    parser.parse_args(namespace=options)


def main():
    """Count, and print."""
    if "START_METHOD" in os.environ:
        mp.set_start_method(os.environ["START_METHOD"])
    parse_options()
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(processName)s: %(message)s")
    csv.register_dialect("words", delimiter=";")
    begun = time.monotonic()

    with mp.Pool(2, lambda: log.info("begins after %.3f s", time.monotonic() - begun)) as pool:
        total = sum(pool.imap_unordered(count, options.files), collections.Counter())

    found = sorted(total.items(), key=lambda item: (-item[1], item[0]))[: options.top]
    width = max((len(word) for word, _ in found), default=0)
    for word, times in found:
        print(f"{word:{width}} {times}")


main()
